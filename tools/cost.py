"""What the runs of an experiment will cost. Reads their flags from standard input, a run a line.

bash examples/main/300m.sh --dry-run          prints the commands of an experiment, and this table
"""

from __future__ import annotations

import argparse
import sys

from megatron_distill.config.error import ConfigError
from megatron_distill.planning.device import DEVICES
from megatron_distill.planning.experiment import costs, table


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1, help="ranks of the whole job, one a device")
    parser.add_argument("--device", choices=DEVICES, default="a100-80gb", help="what each rank runs on")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak FLOP/s that is reached")
    arguments = parser.parse_args()
    ranks, device, mfu = arguments.ranks, DEVICES[arguments.device], arguments.mfu
    try:
        found = costs([line for line in sys.stdin.read().splitlines() if line.strip()], ranks)
    except (ConfigError, OSError) as error:
        print(f"cost.py: {error}", file=sys.stderr)
        return 2
    print(table(found, ranks, device, mfu))
    share = f"{mfu:.0%} of the peak of {ranks} x {device.name}"
    print(f"hours: at {share}, validation and start-up left out; disk: the checkpoints that stay")
    return 0


if __name__ == "__main__":
    sys.exit(main())
