"""One writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
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
        pytest.raises(ConfigError, match=r"process \d+ of .* is writing .*parts"),
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


def refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_flock_a_file_keeps_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    refuse_flock(monkeypatch, number)
    parts = tmp_path / "parts"
    with only_writer(parts):
        assert "is on a file system without flock(); " in capsys.readouterr().err
        said = rf"process {os.getpid()} of .* is writing .*parts; .* no longer runs, remove .*owner"
        with pytest.raises(ConfigError, match=said), only_writer(parts):
            pass
        assert (parts / "owner").exists()
    assert not (parts / "owner").exists()
    with only_writer(parts):
        pass


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_without_flock_a_run_of_this_machine_that_was_killed_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch, errno.ENOSYS)
    tmp_path.joinpath("owner").write_text(json.dumps({"host": socket.gethostname(), "pid": dead_process()}))
    with only_writer(tmp_path):
        pass
    tmp_path.joinpath("owner").write_text(json.dumps({"host": "another", "pid": dead_process()}))
    with pytest.raises(ConfigError, match="of another is writing"), only_writer(tmp_path):
        pass
    tmp_path.joinpath("owner").write_text("{")
    with pytest.raises(ConfigError, match="another process is writing .*remove .*owner"), only_writer(tmp_path):
        pass


def test_another_trouble_of_the_lock_is_not_taken_for_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(ConfigError, match=r"lock cannot be locked: Input/output error"), only_writer(tmp_path):
        pass


def test_workers_of_a_run_that_was_killed_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
    held = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(held, json.dumps({"host": socket.gethostname(), "pid": dead_process()}).encode())
    fcntl.flock(held, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, os.close, [held])
    timer.start()
    with only_writer(tmp_path):
        assert "waiting for the workers of a run that was killed to release" in capsys.readouterr().err
    timer.join()
