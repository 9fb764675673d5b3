"""tools/gather_text.py as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.tools import refusal, run_tool


def test_it_is_text_of_this_python_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        run_tool("gather_text", "--output", tmp_path / name)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = {row["source"]: row["text"] for row in map(json.loads, (tmp_path / "a.jsonl").open())}
    assert len(rows) > 200
    assert "class JSONDecoder" in rows["json/decoder.py"] and "lambda" in rows["help(lambda)"]
    assert not [name for name in rows if "site-packages" in name or name.startswith("test/")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_its_order_is_not_that_of_the_folders(tmp_path: Path) -> None:
    run_tool("gather_text", "--output", tmp_path / "a.jsonl")
    sources = [json.loads(line)["source"] for line in (tmp_path / "a.jsonl").open()]
    assert sources != sorted(sources)


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    assert "cannot be written" in refusal("gather_text", "--output", tmp_path / "missing" / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_only_gathered_text_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "mine"}\n')
    assert "no gathered text; give another" in refusal("gather_text", "--output", tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == '{"text": "mine"}\n'
