"""`python -m megatron_distill doctor`: what this machine has, and what will therefore be used."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    if arguments != ["doctor"]:
        print("usage: python -m megatron_distill doctor", file=sys.stderr)
        return 2
    from megatron_distill.doctor import report

    print(report())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
