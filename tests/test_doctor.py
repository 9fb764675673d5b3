"""`python -m megatron_distill doctor`."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from megatron_distill import doctor
from megatron_distill.parallel import device
from tests.support.runs import ROOT, environment


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it."""
    command = [sys.executable, "-m", "megatron_distill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60)


def test_says_what_is_here_and_what_follows() -> None:
    done = call("doctor")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in done.stdout.splitlines()}
    assert rows["python"] == platform.python_version()
    assert rows["torch"].startswith(torch.__version__)
    assert rows["megatron-core"].startswith("0.16")
    assert rows["C++ data engine"] == "compiled"
    assert rows["--> communication"] == ("nccl" if torch.cuda.is_available() else "gloo")
    assert rows["--> precision"] == f"{str(device.dtype('auto')).removeprefix('torch.')} (--precision auto)"
    assert {"CPU", "tokenizers", "sentencepiece", "transformers", "CUDA kernels", "--> attention"} <= rows.keys()
    assert any(name.startswith("GPU") for name in rows)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", none)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object() if name == "apex" else None)
    rows = dict(doctor._packages())
    assert rows["wandb"] == rows["megatron-core"] == "not installed"
    assert rows["apex"].startswith("present: ")


@pytest.mark.parametrize("arguments", [(), ("nurse",), ("doctor", "now")])
def test_another_command_is_refused(arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "megatron_distill: usage: python -m megatron_distill doctor, or tasks NAME... to check names of tasks\n"
    )
