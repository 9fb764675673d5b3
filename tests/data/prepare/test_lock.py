"""One writer at a time."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare import lock
from megatron_distill.data.prepare.lock import only_writer


def test_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
    with (
        only_writer(tmp_path / "parts"),
        pytest.raises(ConfigError, match=r"another process is writing .*parts"),
        only_writer(tmp_path / "parts"),
    ):
        pass
    with only_writer(tmp_path / "parts"):
        pass


def test_one_that_ends_soon_is_waited_for(tmp_path: Path) -> None:
    order = []

    def first() -> None:
        with only_writer(tmp_path / "parts"):
            order.append("first begins")
            time.sleep(0.3)
            shutil.rmtree(tmp_path / "parts")  # as a run that is done does
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    while not order:
        time.sleep(0.01)
    with only_writer(tmp_path / "parts"):
        order.append("second begins")
        assert (tmp_path / "parts" / "lock").exists()
    thread.join()
    assert order == ["first begins", "first ends", "second begins"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"), only_writer(tmp_path / "missing" / "parts"):
        pass
