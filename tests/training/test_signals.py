"""Signals: which ones ask a run to stop, and how a rank of another role passes them on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from megatron_distill.training.signals import ASKING, StopSignals, passed_on


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
