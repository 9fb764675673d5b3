"""What a run that resumes keeps of its metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.training.metrics_lines import cut_after


def line(iteration: object, kind: str = "train") -> str:
    return json.dumps({"kind": kind, "iteration": iteration, "loss": 1.0})


DAMAGED = [
    '{"kind": "train", "iter',
    "[" * 100_000,
    "null",
    "7",
    line(None),
    line("3"),
    line(1e400),
    line(10**30),
    "\ufffd",
    b'{"kind": "tr\xe4in", "iteration": 1}',
]


@pytest.mark.parametrize("damage", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_is_left_out_and_said(damage: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = (line(1), damage, line(2), line(3))
    path.write_bytes(b"".join((text if isinstance(text, bytes) else text.encode()) + b"\n" for text in lines))
    said = cut_after(path, 2, None)
    assert said == f"{path}: 1 damaged lines are left out, the first is line 2"
    assert path.read_text().splitlines() == [line(1), line(2)]


def test_a_last_line_that_a_crash_cut_in_two_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1) + "\n" + line(2)[:9])
    assert cut_after(path, 5, None) == ""
    assert path.read_text() == line(1) + "\n"
    assert cut_after(tmp_path / "not there", 5, None) == ""


@pytest.mark.parametrize("content", ["", "{", "\0" * 900, "[" * 5000])
def test_a_file_without_a_line_is_said(content: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    assert cut_after(path, 5, None) == f"{path} has no line of the 5 steps before"
    assert cut_after(path, 0, None) == ""


def test_a_whole_last_line_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1) + "\n" + line(2)[:9] + "\n")
    assert cut_after(path, 5, None) == f"{path}: 1 damaged lines are left out, the first is line 2"


def test_nothing_is_written_through_a_link_to_nothing(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "metrics.jsonl", tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    assert cut_after(path, 5, None) == f"{path} is a link to nothing; it is now {path}.damaged"
    assert not path.is_symlink() and Path(f"{path}.damaged").is_symlink()
