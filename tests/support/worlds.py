"""A student world inside test ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch.distributed as dist

from megatron_distill.config.flags import parse
from megatron_distill.config.run import Layout, RunConfig
from megatron_distill.parallel import worlds
from megatron_distill.training.plan import RunPlan, make_plan
from tests.support.runs import MODEL, SMALL

if TYPE_CHECKING:
    from megatron_distill.training.student import Student


@contextmanager
def student_world(*, tp: int = 1, pp: int = 1, num_microbatches: int = 1) -> Iterator[worlds.World]:
    """The ranks of this test as one role with the given layout; they meet through a file, so no port is needed."""
    size = worlds.job_size()
    layout = Layout(tensor=tp, pipeline=pp, data=size // (tp * pp), num_microbatches=num_microbatches)
    store = dist.FileStore(os.environ["STORE_FILE"], size) if size > 1 else dist.HashStore()
    with (
        mock.patch.object(worlds, "_store", return_value=store),
        worlds.open_world((worlds.Role("student", layout),), timeout_minutes=1.0) as world,
    ):
        yield world


def plan(run: Path, corpus: Path, *flags: object) -> RunPlan:
    """The plan of a small run in this world; later flags win."""
    common = [*MODEL, *SMALL, "--train-iters", 10, "--data-path", corpus, "--save", run, *flags]
    return make_plan(parse(RunConfig, [str(flag) for flag in common]), world_size=worlds.job_size())


@contextmanager
def student(run: Path, corpus: Path, *flags: object) -> Iterator[Student]:
    """A fresh student of such a plan, in its world."""
    resolved = plan(run, corpus, *flags)
    lay = resolved.layout
    with student_world(tp=lay.tensor, pp=lay.pipeline, num_microbatches=lay.num_microbatches):
        from megatron_distill.training.student import build_student

        yield build_student(resolved, 0, weights=resolved.load_from, with_optimizer=False)
