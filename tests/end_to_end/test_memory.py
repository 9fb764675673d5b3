"""What a run holds does not grow with its steps: memory, files and threads of every rank, wherever a teacher is."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Pids, forked, lines
from tests.support.runs import SMALL

EARLY, LATE = range(100, 125), (range(190, 215), range(230, 255))
"""Steps between which nothing may grow; before them the allocator has not settled, and it wavers after, so one of the
later ones is enough. What is held for ever is in both: the teacher sends 47 MiB until the first of them."""
MIB = 1 << 20


def holds(pid: int) -> tuple[int, int, int]:
    """Private bytes, open files and threads of a process."""
    process = psutil.Process(pid)
    return process.memory_full_info().uss, process.num_fds(), process.num_threads()


def least(pids: Pids, run: Path, steps: range) -> list[tuple[int, ...]]:
    """The least of each that every process holds during some steps."""
    while lines(run) < steps.start:
        time.sleep(0.01)
    samples = []
    while lines(run) < steps.stop:
        samples.append([holds(pid) for pid in pids])
    return [tuple(map(min, zip(*of_one, strict=True))) for of_one in zip(*samples, strict=True)]


@pytest.mark.parametrize(("placement", "ranks"), [("none", 1), ("colocated", 1), ("separate", 2)])
def test_nothing_grows_from_step_to_step(
    placement: str, ranks: int, corpus: Path, base_run: Path, tmp_path: Path
) -> None:
    run, measured = tmp_path / "run", []

    def measure(pids: Pids) -> None:
        measured.extend(least(pids, run, steps) for steps in (EARLY, *LATE))

    teacher = [] if placement == "none" else ["--loss", "vanilla", "--teacher-placement", placement]
    codes, said = forked(
        *(*SMALL, "--data-path", corpus, "--load", base_run, "--save", run, "--split", "100,0,0"),
        *("--pruning-layout", "1-4", "--seq-length", 256, "--micro-batch-size", 4, "--global-batch-size", 8),
        *("--train-iters", LATE[-1].stop + 20, *teacher),
        ranks=ranks,
        on_row=(1, measure),
        timeout_s=400,
    )
    assert codes == [0] * ranks, said
    for before, *after in zip(*measured, strict=True):
        memory, files, threads = (min(counts) - a for a, *counts in zip(before, *after, strict=True))
        assert memory < 32 * MIB, f"{memory / MIB:.1f} MiB more after {LATE[0].start - EARLY.start} steps"
        assert files < 10 and threads < 10, "one a step would be 90; one or two are open for a moment"
