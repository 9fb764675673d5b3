"""tools/report.py, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.records import NUMBERS, write_run, write_study
from tests.support.tools import refusal, run_tool


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    flags: list[object] = ["--output", tmp_path / "out"]
    for name in NUMBERS:
        flags += [f"--{name}", write_run(tmp_path / name, name)]
    return flags


def test_prints_the_table_and_writes_the_report(arguments: list[object], tmp_path: Path) -> None:
    said = run_tool("report", *arguments).stdout
    for label in ("base", "just truncated", "compressed", "from scratch"):
        assert sum(line.startswith(label + " ") for line in said.splitlines()) == 1
    assert "compressing is better by 38%" in said
    assert said.endswith(f"report: {tmp_path / 'out' / 'report.html'}\n")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {name: list(entry) for name, entry in summary.items()} == {
        name: ["parameters", "tokens", "flops", "perplexity"] for name in ("base", "truncated", "compressed", "scratch")
    }


def test_an_unfinished_run(arguments: list[object], tmp_path: Path) -> None:
    (tmp_path / "scratch" / "result.json").unlink()
    said = refusal("report", *arguments)
    assert str(tmp_path / "scratch") in said and "let it come to its end first" in said
    assert not (tmp_path / "out").exists()


def test_no_such_run(arguments: list[object], tmp_path: Path) -> None:
    assert "nowhere holds no finished run" in refusal("report", *arguments, "--base", tmp_path / "nowhere")


def test_a_folder_that_cannot_be_made(arguments: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refusal("report", *arguments, "--output", tmp_path / "file" / "out")


def test_the_papers_from_runs(tmp_path: Path) -> None:
    runs, out = write_study(tmp_path / "runs"), tmp_path / "deep" / "out"
    (runs / "seed2" / "minilm" / "result.json").unlink()
    said = run_tool("report", runs / "base", runs, "--output", out).stdout.splitlines()
    assert said[0].startswith(f"left out: {runs / 'seed2' / 'minilm'} holds no finished run")
    assert "agrees: Training without a teacher is no worse than any distillation." in said
    assert said[-2:] == ["16 runs in the tables, 0 others", f"report: {out / 'report.html'}"]
    assert {path.name for path in out.iterdir()} == {"report.html", "report.md", "report.csv", "figures"}


@pytest.mark.parametrize("given", [[], ["--base", "x"], ["runs", "--base", "x", "--compressed", "y", "--scratch", "z"]])
def test_one_of_two_ways(tmp_path: Path, given: list[str]) -> None:
    assert "give either folders of runs, or all of --base" in refusal("report", *given, "--output", tmp_path / "out")


def test_a_folder_without_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "there is no finished run in" in refusal("report", tmp_path / "runs", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
