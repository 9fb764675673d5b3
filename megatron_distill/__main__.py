"""`python -m megatron_distill doctor`: what this machine has, and what will therefore be used."""

from __future__ import annotations

import sys

from megatron_distill.config.error import ConfigError
from megatron_distill.config.program import run_program


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    return run_program("megatron_distill", lambda: command(arguments))


def command(arguments: list[str]) -> int:
    """Run one of the commands; returns the exit code."""
    if arguments[:1] == ["tasks"] and len(arguments) > 1:
        from megatron_distill.evaluation.known_tasks import check_tasks

        check_tasks(arguments[1:])
        return 0
    if arguments != ["doctor"]:
        raise ConfigError("usage: python -m megatron_distill doctor, or tasks NAME... to check names of tasks")
    from megatron_distill.doctor import report

    print(report())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
