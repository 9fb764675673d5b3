"""The table and the file."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from megatron_distill.evaluation.results import Results, Score, table
from megatron_distill.evaluation.suites import PAPER


def scored(value: float = 0.5, stderr: float | None = 0.03) -> Results:
    found = Results("run", iteration=7)
    found.scores = {name: Score(figure.metric, value, stderr, 100) for name, figure in PAPER.items()}
    return found


def test_means_and_their_errors() -> None:
    found = scored()
    found.scores["sst2"] = Score("acc", 0.76, 0.03, 100)
    means = found.averages()
    assert means["paper13"].value == pytest.approx((12 * 0.5 + 0.76) / 13)
    assert means["paper12"].value == pytest.approx(0.5)
    assert means["paper12"].stderr == pytest.approx(0.03 * math.sqrt(12) / 12)
    assert scored(stderr=None).averages()["eight"].stderr is None


def test_the_papers_tables_come_out() -> None:
    """arXiv:2305.14864v1, Table 3, first row: its scores give its average."""
    row = (0.7171, 0.4695, 0.5241, 0.6073, 0.3300, 0.8160, 0.5281, 0.2809, 0.7300, 0.5523, 0.4107, 0.8105, 0.4920)
    found = Results("300M")
    found.scores = {name: Score("acc", value, None, 1) for name, value in zip(PAPER, row, strict=True)}
    assert found.averages()["paper13"].value == pytest.approx(0.5591, abs=5e-5)


def test_table() -> None:
    found = scored()
    found.scores = {"piqa": found.scores["piqa"], "perplexity": Score("ppl", 12.3456, 0.5, 12345)}
    assert table(found).splitlines() == [
        "task        metric     score     +-   items",
        "piqa        acc_norm    50.0    3.0     100",
        "perplexity  ppl       12.346  0.500  12,345",
    ]


def test_a_mean_is_over_scores_that_were_taken_alike() -> None:
    found = scored()
    found.scores["piqa"] = replace(found.scores["piqa"], settings={"limit": 5})
    assert set(found.averages()) == set()
    found.take("piqa", {"piqa": found.scores["piqa"]}, {"data": {"sha256": "of its own file"}})
    assert set(found.averages()) == {"paper13", "paper12", "eight"}


def test_a_note_stands_under_the_table() -> None:
    found = Results("run", scores={"piqa": Score("acc_norm", 0.5, None, 9, note="2 of 18 are cut")})
    assert table(found).splitlines()[-1] == "piqa: 2 of 18 are cut"
