"""Train a decoder, compress a pretrained one, or distil it from a teacher. Start here.

    torchrun --nproc-per-node 8 pretrain_distill.py --help
    python pretrain_distill.py ...        the same with one process

What can be wrong in a configuration is found before any process group starts: one sentence, exit code 2.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

from megatron_distill.config.environment import job_place
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.program import run_program, say
from megatron_distill.config.run import RunConfig
from megatron_distill.training.dry_run import describe
from megatron_distill.training.plan import RunPlan, make_plan

NAME = "pretrain_distill.py"


def main(arguments: list[str] | None = None) -> int:
    """Parse, plan, join the world, run; returns the exit code."""
    return run_program(NAME, lambda: pretrain(arguments), speaks=_is_first)


def pretrain(arguments: list[str] | None) -> int:
    """Parse, plan, and do what was asked for.

    Raises:
        ConfigError: anything that a user can have got wrong.
    """
    # megatron-core tells at import which optional packages it misses; `doctor` says that better.
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    config = parse(RunConfig, arguments)
    plan = make_plan(config, world_size=job_place().size)
    if config.dry_run:
        print(describe(plan))
        return 0
    if plan.finished:
        if _is_first():
            print(f"{config.checkpoint.save} is finished, all of its {plan.total_iters} steps are taken")
        return 0
    return train(plan)


def train(plan: RunPlan) -> int:
    """Everything that needs torch."""
    from megatron_distill.checkpoint.lock import locked
    from megatron_distill.models.attention import choose_backend
    from megatron_distill.training.job import Failure, run_job
    from megatron_distill.training.teaching import build_terms

    training = plan.config.training
    choose_backend(training.attention_backend, training.precision)  # fails here, before any rank waits for another
    terms = build_terms(plan)
    try:
        with locked(Path(plan.config.checkpoint.save)) if _is_first() else nullcontext():
            run_job(plan, terms)
    except Failure as failure:
        if failure.speaks:
            say(NAME, str(failure))
        return failure.exit_code
    return 0


def _is_first() -> bool:
    try:
        return job_place().rank == 0
    except ConfigError:  # no rank knows which it is, so each of them speaks
        return True


if __name__ == "__main__":
    sys.exit(main())
