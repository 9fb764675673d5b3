"""Signals: which ones ask a run to stop, and how a rank of another role passes them on."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch.distributed as dist

from megatron_distill.training.signals import ASKING, StopSignals, passed_on
from tests.support.cluster import Pids, forked
from tests.support.runs import MODEL, SMALL


@pytest.mark.parametrize("number", ASKING, ids=lambda number: number.name)
def test_each_signal_is_noted_and_nothing_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received
    assert signal.getsignal(number) == before


def test_another_role_passes_a_signal_on(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), -1)
    with StopSignals(store) as student, passed_on(store):
        assert not student.received
        os.kill(os.getpid(), signal.SIGUSR2)
        deadline = time.monotonic() + 20
        while not student.received and time.monotonic() < deadline:
            time.sleep(0.01)
        assert student.received and student.received, "and it stays so"


TEACHER = ("--teacher-placement", "separate", "--loss", "vanilla")


@pytest.mark.parametrize("roles", ["a student", "a student and a teacher"])
def test_asked_again_and_again_it_ends_as_if_asked_once(
    roles: str, corpus: Path, base_run: Path, tmp_path: Path
) -> None:
    """Launchers pass signals on, and people repeat them: the last ones come when all is saved and ranks only end."""

    ended = threading.Event()

    def ask(pids: Pids) -> None:
        def repeat() -> None:
            while not ended.wait(0.01):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)

        threading.Thread(target=repeat, daemon=True).start()

    more = TEACHER if "teacher" in roles else ()
    flags = (*MODEL, *SMALL, "--num-layers", 6, "--data-path", corpus, "--load", base_run, "--train-iters", 1000, *more)
    try:
        codes, said = forked(*flags, "--save", tmp_path / "run", ranks=2, on_row=(3, ask))
    finally:
        ended.set()
    assert codes == [0, 0], said
    assert "saved; the same command goes on from here" in said
