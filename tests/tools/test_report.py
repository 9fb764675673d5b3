"""tools/report.py, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.records import NUMBERS, write_run
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
