"""Runs side by side: perplexity, time and FLOPs of finished runs, those with the same folder name together.

python tools/compare_runs.py runs/seed1/vanilla runs/seed2/vanilla runs/seed1/minilm runs/seed2/minilm
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megatron_distill.report.comparison import compare
from megatron_distill.report.records import read_run


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    groups: dict[str, list[Path]] = {}
    for run in parser.parse_args().runs:
        groups.setdefault(run.name, []).append(run)
    try:
        print(compare({name: [read_run(run) for run in runs] for name, runs in groups.items()}))
    except (ValueError, OSError) as error:
        print(f"compare_runs.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
