"""What a run holds does not grow with its steps: memory, files and threads of every rank, wherever a teacher is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Pids, forked, lines
from tests.support.runs import SMALL

FROM, TO = 60, 130
"""Steps between which it is measured, when the allocator has settled; the teacher sends half a megabyte a step."""
MIB = 1 << 20


def holds(pid: int) -> tuple[int, int, int]:
    """Private bytes, open files and threads of a process."""
    process = psutil.Process(pid)
    return process.memory_full_info().uss, process.num_fds(), process.num_threads()


@pytest.mark.parametrize(("placement", "ranks"), [("none", 1), ("colocated", 1), ("separate", 2)])
def test_nothing_grows_from_step_to_step(
    placement: str, ranks: int, corpus: Path, base_run: Path, tmp_path: Path
) -> None:
    run, measured = tmp_path / "run", []

    def measure_twice(pids: Pids) -> None:
        measured.append([holds(pid) for pid in pids])
        threading.Thread(target=measure_at_the_end, args=(pids,), daemon=True).start()

    def measure_at_the_end(pids: Pids) -> None:
        while lines(run) < TO:
            time.sleep(0.005)
        measured.append([holds(pid) for pid in pids])

    teacher = [] if placement == "none" else ["--loss", "vanilla", "--teacher-placement", placement]
    codes, said = forked(
        *(*SMALL, "--data-path", corpus, "--load", base_run, "--save", run, "--split", "100,0,0"),
        *("--pruning-layout", "1-4", "--seq-length", 256, "--micro-batch-size", 4, "--global-batch-size", 8),
        *("--train-iters", TO + 10, *teacher),
        ranks=ranks,
        on_row=(FROM, measure_twice),
        timeout_s=400,
    )
    assert codes == [0] * ranks, said
    for before, after in zip(*measured, strict=True):
        memory, files, threads = (b - a for a, b in zip(before, after, strict=True))
        assert memory < 20 * MIB, f"{memory / MIB:.1f} MiB more after {TO - FROM} steps"
        assert files <= 0 and threads <= 0
