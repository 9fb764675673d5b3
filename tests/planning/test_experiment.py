"""What an experiment costs before it starts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.planning.device import DEVICES
from megatron_distill.planning.experiment import costs, hours, table
from tools import cost

PAPER = "--train-tokens 20B --nominal-tokens --seq-length 2048 --global-batch-size 1024"
BASE = f"--model palm-300m-paper {PAPER} --save runs/base"
HALF = f"--load runs/base {PAPER} --pruning-layout max-gap --pruning-seed-tokens 1B --save runs/half"
A100 = DEVICES["a100-80gb"]


def test_a_run_starts_from_one_that_is_yet_to_come() -> None:
    base, half, taught = costs([BASE, HALF, f"{HALF}-kd --teacher-placement colocated --loss vanilla"], ranks=4)
    assert [base.name, half.name, taught.name] == ["base", "half", "half-kd"]
    assert [f"{run.paper_flops / 1e18:.2f}" for run in (half, taught)] == ["21.22", "33.31"]  # v2, Table 4
    assert base.tokens == half.tokens == 10_000 * 2**21
    assert base.disk == 2 * 303_515_648 * 10  # two checkpoints: bf16 weight, fp32 master weight and Lion moment


def test_a_checkpoint_on_the_way_may_be_the_start() -> None:
    later = HALF.replace("runs/base", "runs/base/checkpoints/iter_0005000")
    assert costs([BASE, later], ranks=1)[1].steps == 10_000


def test_kept_checkpoints_take_disk() -> None:
    assert costs([f"{BASE} --save-retain-interval 5000"], ranks=1)[0].disk == 4 * 303_515_648 * 10


def test_a_run_that_nothing_makes() -> None:
    with pytest.raises(ConfigError, match="--load runs/base is not there, and no run before it makes it"):
        costs([HALF], ranks=1)


def test_hours() -> None:
    assert hours(312e12 * 3600, 4, A100, 0.5) == 0.5


def test_finished_runs_are_not_counted(base_run: Path, corpus: Path) -> None:
    flags = " ".join((base_run / "flags.txt").read_text().splitlines())
    (finished,) = costs([flags], ranks=1)
    assert finished.finished and finished.steps == json.loads((base_run / "result.json").read_text())["iterations"]
    lines = table([finished, *costs([BASE], ranks=1)], 1, A100, 0.4).splitlines()
    assert lines[2].startswith(f"{base_run.name} (finished) ")
    assert lines[-1].split()[:4] == ["1", "to", "run", "20,971,520,000"]


def test_the_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{BASE}\n\n{HALF}\n"))
    monkeypatch.setattr("sys.argv", ["cost.py", "--ranks", "4"])
    assert cost.main() == 0
    assert "hours: at 40% of the peak of 4 x a100-80gb" in capsys.readouterr().out


def test_the_tool_and_a_wrong_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(BASE.replace("--model", "--modle")))
    monkeypatch.setattr("sys.argv", ["cost.py"])
    assert cost.main() == 2
    assert capsys.readouterr().err == "cost.py: there is no flag --modle; did you mean --model?\n"
