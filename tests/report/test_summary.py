"""The table and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

from megatron_distill.report.records import RunRecord, read_run
from megatron_distill.report.summary import as_text, summarise, table_rows, verdict, write_summary
from tests.support.records import NUMBERS, write_run


def runs(folder: Path, **perplexities: float) -> dict[str, RunRecord]:
    """The three runs, some with another perplexity."""
    return {n: read_run(write_run(folder / n, n, perplexity=perplexities.get(n))) for n in NUMBERS}


def test_four_models(tmp_path: Path) -> None:
    entries = summarise(**runs(tmp_path))
    keys = ("parameters", "tokens", "flops", "perplexity")
    assert [(name, *(e[k] for k in keys)) for name, e in entries.items()] == [
        ("base", 1_000_000, 50_000, 3e11, 20.0),
        ("truncated", 600_000, 0, 0.0, 60.0),  # the compressed run's first validation
        ("compressed", 600_000, 10_000, 4e10, 25.0),
        ("scratch", 600_000, 10_000, 3.6e10, 40.0),
    ]
    assert all(set(e) == set(keys) for e in entries.values())


def test_the_table(tmp_path: Path) -> None:
    assert table_rows(summarise(**runs(tmp_path, scratch=1234.567))) == [
        ("model", "parameters", "tokens", "FLOPs", "validation perplexity"),
        ("base", "1,000,000", "50,000", "3e+11", "20.00"),
        ("just truncated", "600,000", "0", "0", "60.00"),
        ("compressed", "600,000", "10,000", "4e+10", "25.00"),
        ("from scratch", "600,000", "10,000", "3.6e+10", "1,234.57"),
    ]


def test_better_is_said(tmp_path: Path) -> None:
    said = verdict(summarise(**runs(tmp_path)))
    assert "With 60% of the base's parameters" in said
    assert "has perplexity 25.00; the base has 20.00" in said
    assert "on the same 10,000 tokens has 40.00: compressing is better by 38%." in said


def test_worse_is_not_hidden(tmp_path: Path) -> None:
    said = verdict(summarise(**runs(tmp_path, compressed=60.0)))
    assert said.endswith("compressing is WORSE by 50%.")
    assert "better" not in said


def test_columns_are_aligned() -> None:
    assert as_text([("model", "n"), ("a", "1,000"), ("bcd", "7")]).splitlines() == [
        "model      n",
        "------------",
        "a      1,000",
        "bcd        7",
    ]


def test_everything_is_written(tmp_path: Path) -> None:
    records = runs(tmp_path)
    text = write_summary(tmp_path / "a" / "b", records)
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"summary.json", "loss_curves.png", "report.html"}
    assert json.loads((tmp_path / "a" / "b" / "summary.json").read_text()) == summarise(**records)
    assert verdict(summarise(**records)) in text and "just truncated" in text
