"""Lay a base model, its compressed form and a same-size model from scratch side by side.

python tools/report.py --base RUN --compressed RUN --scratch RUN --output DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megatron_distill.report.records import read_run
from megatron_distill.report.summary import write_summary

ROLES = ("base", "compressed", "scratch")


def main() -> int:
    """Write summary.json, loss_curves.png and report.html, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for role in ROLES:
        parser.add_argument(f"--{role}", type=Path, required=True, help=f"run folder of the {role} model")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = vars(parser.parse_args())
    try:
        text = write_summary(arguments["output"], {role: read_run(arguments[role]) for role in ROLES})
    except (ValueError, OSError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    print(f"\n{text}\n\nreport: {arguments['output'] / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
