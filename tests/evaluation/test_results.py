"""The table and the file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from megatron_distill.evaluation.results import Results, Score, known, table, write
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


def test_what_was_evaluated_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    first, second, other = scored(), scored(), scored()
    first.scores.pop("sst2")
    second.scores = {"sst2": second.scores["sst2"]}
    other.iteration = 9
    for results in (first, second, other):
        write(path, results)
    models = json.loads(path.read_text())["models"]
    assert set(models) == {"iter_0000007", "iter_0000009"}
    assert set(models["iter_0000007"]["scores"]) == set(PAPER)
    assert models["iter_0000007"]["averages"]["paper13"]["value"] == pytest.approx(0.5)


def test_a_score_is_known_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    assert known(path, "iter_0000007", {"limit": 5}) == {}
    first, second = scored(), scored()
    first.settings, second.settings = {"limit": 5}, {"limit": None}
    second.scores = {"piqa": second.scores["piqa"]}
    write(path, first)
    write(path, second)
    assert set(known(path, "iter_0000007", {"limit": 5})) == set(PAPER) - {"piqa"}
    assert set(known(path, "iter_0000007", {"limit": None})) == {"piqa"}
    assert known(path, "iter_0000009", {"limit": 5}) == {}
