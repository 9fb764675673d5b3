"""What the runs of an experiment will cost. Reads their flags from standard input, a run a line.

bash examples/main/300m.sh --dry-run          prints the commands of an experiment, and this table
"""

from __future__ import annotations

import sys

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.limits import RANKS, number, whole_number
from megatron_distill.config.program import run_program
from megatron_distill.planning.device import DEVICES
from megatron_distill.planning.experiment import costs, table


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    return run_program("cost.py", lambda: cost(arguments))


def cost(words: list[str] | None) -> int:
    """Read the runs and print what they cost; returns the exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ranks", type=whole_number(least=1, most=RANKS), default=1, help="ranks of the whole job, one a device"
    )
    parser.add_argument("--device", choices=DEVICES, default="a100-80gb", help="what each rank runs on")
    parser.add_argument(
        "--mfu", type=number(above=0, most=1), default=0.4, help="share of the peak FLOP/s that is reached"
    )
    arguments = parser.parse(words)
    ranks, device, mfu = arguments.ranks, DEVICES[arguments.device], arguments.mfu
    found = costs([line for line in sys.stdin.read().splitlines() if line.strip()], ranks)
    print(table(found, ranks, device, mfu))
    share = f"{mfu:.0%} of the peak of {ranks} x {device.name}"
    print(f"hours: at {share}, validation and start-up left out; disk: the checkpoints that stay")
    return 0


if __name__ == "__main__":
    sys.exit(main())
