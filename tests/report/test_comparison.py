"""Runs side by side."""

from __future__ import annotations

from pathlib import Path

from megatron_distill.report.comparison import compare
from megatron_distill.report.records import RunRecord


def record(perplexity: float, seconds: float) -> RunRecord:
    result = {"perplexity": perplexity, "seconds": seconds, "parameters": 1000, "tokens": 2000, "flops": 1.5e9}
    return RunRecord(Path("run"), result | {"paper_flops": 1.25e9}, {}, [])


def test_a_line_for_each_group() -> None:
    table = compare({"vanilla": [record(10.0, 4.0), record(14.0, 6.0)], "scratch": [record(20.0, 1.0)]}).splitlines()
    assert table[0].split() == ["run", "seeds", "parameters", "tokens", "FLOPs", "paper", "FLOPs", "s", "perplexity"]
    assert table[2].split() == ["vanilla", "2", "1,000", "2,000", "1.5e+09", "1.25e+09", "5", "12.00", "±", "2.83"]
    assert table[3].split() == ["scratch", "1", "1,000", "2,000", "1.5e+09", "1.25e+09", "1", "20.00"]
