"""How far a teacher is ahead, and how it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.support.ranks import launch
from tests.support.runs import SMALL

CREDITS, MICROBATCHES = 3, 2


def serve_or_take(rank: int, base: str, corpus: str, tmp_path: Path, teachers: int, students: int, until: int) -> None:
    """The teacher counts what it begins; the student takes a micro-batch, and looks how far the teacher goes.

    Credits reach over the end of a step of 2 micro-batches, and over the first step, which is measured and so served
    twice. The student ends after `until` micro-batches.
    """
    from unittest import mock

    from megatron_distill.config.flags import parse
    from megatron_distill.config.run import RunConfig
    from megatron_distill.parallel import worlds
    from megatron_distill.teachers.serve import Server
    from megatron_distill.training import teaching
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.plan import make_plan

    flags = [
        *(*SMALL, "--data-path", corpus, "--load", base, "--save", tmp_path / "run", "--train-iters", 5),
        *(
            "--micro-batch-size",
            1,
            "--global-batch-size",
            MICROBATCHES * students,
            "--loss",
            "vanilla",
            "hidden-states",
        ),
        *("--teacher-placement", "separate", "--teacher-data-parallel-size", teachers, "--bridge-credits", CREDITS),
    ]
    plan = make_plan(parse(RunConfig, [str(flag) for flag in flags]), world_size=teachers + students)
    terms = teaching.build_terms(plan)
    count = dist.FileStore(os.environ["STORE_FILE"] + "-count", -1)
    serves = Server._serve

    def counted(self: Server, number: int, replica: int, batch: object) -> None:
        count.add(f"begun{replica}", 1)
        serves(self, number, replica, batch)  # type: ignore[arg-type]

    store = dist.FileStore(os.environ["STORE_FILE"], teachers + students)
    with (
        mock.patch.object(worlds, "_store", return_value=store),
        mock.patch.object(Server, "_serve", counted),
        worlds.open_world(teaching.roles(plan), timeout_minutes=1.0, bridges=teaching.bridges(plan, terms)) as world,
    ):
        if world.role.name == "teacher":
            teaching.serve(plan, world, terms)
            return
        service = teaching._service(plan, terms)
        numbers = list(service.numbers())
        assert numbers == [0, 1, *range(10)]
        batches = Feed(plan).batches_at(service.first_sample(n, rank) for n in numbers)
        ahead = CREDITS * len(service.pairing.servers(rank))
        with teaching.open_teacher(plan, world, terms) as source:
            assert source is not None
            for taken in range(until + 1):
                expected = min(taken + ahead, len(numbers))
                assert begun(count, rank, expected) == expected
                if taken < until:
                    shown = source.take(numbers[taken], next(batches), ())
                    assert {tap.kind for tap in shown} == {"final_hidden", "hidden"} and len(shown) == 7
        assert begun(count, rank, expected) == expected


def begun(count: dist.Store, replica: int, expected: int) -> int:
    """Micro-batches begun for a replica, once they are as many as expected and no more come."""
    deadline = time.monotonic() + 20
    while count.add(f"begun{replica}", 0) < expected and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    return count.add(f"begun{replica}", 0)


@pytest.mark.parametrize(
    ("teachers", "students", "until"), [(1, 1, 12), (1, 1, 0), (1, 2, 5), (2, 1, 5)], ids=lambda value: str(value)
)
def test_the_teacher_is_ahead_by_its_credits_and_ends_with_the_student(
    teachers: int, students: int, until: int, base_run: Path, corpus: Path, tmp_path: Path
) -> None:
    arguments = {"base": str(base_run), "corpus": str(corpus), "teachers": teachers, "students": students}
    launch(serve_or_take, teachers + students, 60.0, tmp_path, arguments | {"until": until})
