"""Reading what a run left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.report.records import read_rows, read_run
from tests.support.records import write_run


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", "base"))
    assert run.result["parameters"] == 1_000_000
    assert run.run["device"] == "CPU"
    tokens, losses = run.series("train")
    assert (tokens[0], tokens[-1], losses[0], losses[-1]) == (5000, 50_000, 4.8, 3.0)
    assert run.series("valid")[0] == [0, 50_000]
    assert run.series("removal") == ([], [])


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "consumed_tokens": 60_000, "loss": "nan"}) + "\n")
        file.write(json.dumps({"kind": "train", "consumed_tokens": 70_000, "loss": 2.5}) + "\n")
    tokens, losses = read_run(folder).series("train")
    assert (tokens[-2:], losses[-2:]) == ([50_000, 70_000], [3.0, 2.5])


def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train"}\n{"kind": "tr\n{"kind": "valid"}\n{"ki')
    assert read_rows(path) == [{"kind": "train"}, {"kind": "valid"}]


def test_an_unfinished_run_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match="run holds no finished run .*let it come to its end"):
        read_run(folder)


def test_a_run_as_training_leaves_it(base_run: Path) -> None:
    run = read_run(base_run)
    tokens, losses = run.series("train")
    assert tokens == [128 * step for step in range(1, 31)]
    assert losses[-1] < losses[0]
    assert run.series("valid")[0] == [0, 128 * 30]
