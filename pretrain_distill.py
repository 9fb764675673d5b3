"""Train a decoder, compress a pretrained one, or distil it from a teacher. Start here.

    torchrun --nproc-per-node 8 pretrain_distill.py --help
    python pretrain_distill.py ...        the same with one process

What can be wrong in a configuration is found before any process group starts: one sentence, exit code 2.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_distill.config.environment import JobPlace, job_place, meeting_point
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.program import run_program, say
from megatron_distill.config.run import RunConfig
from megatron_distill.training.checks import notes
from megatron_distill.training.dry_run import describe
from megatron_distill.training.plan import RunPlan, make_plan

if TYPE_CHECKING:
    from megatron_distill.training.job import Failure

NAME = "pretrain_distill.py"


def main(arguments: list[str] | None = None) -> int:
    """Parse, plan, join the world, run; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments

    def start() -> int:
        try:
            return pretrain(words)
        except ConfigError as error:
            return _refuse(error, dry="--dry-run" in words)

    return run_program(NAME, start)


def pretrain(arguments: list[str]) -> int:
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
    if plan.finished and job_place().size == 1:
        return _report_finished(plan)
    if job_place().rank == 0:
        for note in notes(plan):
            say(NAME, note)
    return train(plan)


def train(plan: RunPlan) -> int:
    """Everything that needs torch; of a finished run, only that all ranks find it finished."""
    from megatron_distill.checkpoint.lock import locked
    from megatron_distill.models.attention import choose_backend
    from megatron_distill.training.job import Failure, run_job
    from megatron_distill.training.teaching import build_terms

    training = plan.config.training
    choose_backend(training.attention_backend, training.precision)  # fails here, before any rank waits for another
    terms = build_terms(plan)
    first = job_place().rank == 0
    try:
        with locked(Path(plan.config.checkpoint.save)) if first and not plan.finished else nullcontext():
            run_job(plan, terms)
    except Failure as failure:
        return _end(failure)
    return _report_finished(plan) if plan.finished and first else 0


def _report_finished(plan: RunPlan) -> int:
    print(f"{plan.config.checkpoint.save} is finished, all of its {plan.total_iters} steps are taken")
    return 0


def _refuse(error: ConfigError, *, dry: bool) -> int:
    """End because of wrong input that this rank has found; the other ranks of the job learn why, and none waits."""
    try:
        place = job_place()
        meeting_point()
    except ConfigError:  # nobody can be told
        place = JobPlace()
    # A dry run plans a job from one process, which other ranks never join.
    alone = dry or place.size == 1 or "RANK" not in os.environ
    if alone or place.local_rank == 0:
        say(NAME, str(error))
    if alone:
        return 2
    from megatron_distill.training.job import tell_job

    return _end(tell_job(str(error)))


def _end(failure: Failure) -> int:
    if failure.speaks:
        say(NAME, str(failure))
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
