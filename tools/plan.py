"""How to divide GPUs between teacher and student, and what a run will cost.

python tools/plan.py --teacher palm-1.1b-paper --layers 12 --gpus 8 --method minilm
python tools/plan.py --papers
"""

from __future__ import annotations

import json
import sys

from megatron_distill.config.flags import parse
from megatron_distill.config.program import run_program
from megatron_distill.planning.describe import as_json, describe, describe_papers
from megatron_distill.planning.job import make_job
from megatron_distill.planning.request import PlanConfig
from megatron_distill.planning.search import find_splits, shown


def main(arguments: list[str] | None = None) -> int:
    """Print a plan; returns the exit code."""
    return run_program("plan.py", lambda: plan(arguments))


def plan(arguments: list[str] | None) -> int:
    """Read the flags, find the best splits and print them; returns the exit code."""
    config = parse(PlanConfig, arguments, program="plan.py")
    if config.papers:
        print(describe_papers())
        return 0
    job = make_job(config)
    splits = shown(find_splits(job), config.top)
    print(json.dumps(as_json(job, splits), indent=1) if config.json else describe(job, splits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
