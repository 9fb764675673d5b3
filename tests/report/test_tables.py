"""Tables with ours and the published value in every cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_distill.report.papers import PapersReport, build_report
from megatron_distill.report.records import find_runs
from megatron_distill.report.table import Cell
from tests.support.records import write_experiment

TABLES = {
    "main_v2": (10, 15),
    "main_v1": (6, 16),
    "costs_v2": (8, 9),
    "costs_v1": (4, 9),
    "where_v2": (6, 6),
    "where_v1": (9, 9),
    "when": (12, 4),
    "how_much": (21, 3),
    "lambda": (6, 4),
    "no_lm": (12, 2),
    "from_scratch": (6, 4),
}


def cell(report: PapersReport, table: str, *labels: str) -> Cell:
    """The only cell of a table whose row and column are named so."""
    *row, column = labels
    (found_table,) = [t for t in report.tables if t.name == table]
    (found,) = [c for r, name, c in found_table.cells() if list(r.label) == row and name == column]
    return found


def test_every_table_of_the_papers(papers_report: PapersReport) -> None:
    assert {t.name: (len(t.rows), len(t.columns)) for t in papers_report.tables} == TABLES


def test_every_cell_has_a_number_or_a_reason_on_both_sides(papers_report: PapersReport) -> None:
    for table in papers_report.tables:
        for _, _, found in table.cells():
            assert (found.ours is None) == bool(found.missing)
            assert (found.published is None) == bool(found.unpublished)


def test_ours_beside_the_published_value(papers_report: PapersReport) -> None:
    found = cell(papers_report, "main_v2", "300M-160B", "teacher-free", "perplexity / before")
    assert found.ours is not None and found.published is not None
    assert found.difference == pytest.approx(30.15 / 20 - 23.0 / 16.2)
    assert (len(found.ours.values), found.published.text, found.verdict) == (2, "1.420", -1)


def test_perplexities_of_other_texts_are_neither_better_nor_worse(papers_report: PapersReport) -> None:
    found = cell(papers_report, "main_v2", "300M-160B", "before", "perplexity")
    assert (found.difference, found.verdict) == (pytest.approx(20.0 - 16.2), 0)


@pytest.mark.parametrize(
    ("where", "missing", "unpublished"),
    [
        (("main_v2", "1.1B-160B", "teacher-free", "perplexity"), "not run", ""),
        (("main_v2", "300M-160B", "vanilla KD", "PIQA"), "not evaluated on tasks", ""),
        (("costs_v2", "300M-160B", "teacher-free", "MFU"), "device's peak unknown", "not in the paper"),
        (("where_v1", "1.1B-160B, 12 of 24 removed", "perplexity", "alt-input"), "does not fit 24 layers", ""),
        (("where_v1", "1.1B-160B, 12 of 24 removed", "perplexity", "alt-both"), "the same layers as max-gap", ""),
        (("when", "300M-160B, 12 of 24 removed", "perplexity", "100M apart"), "", "plotted only in the paper"),
        (("when", "300M-80B, 8 of 24 removed", "perplexity", "100M apart"), "not run", "not in the paper"),
        (("lambda", "300M-160B", "perplexity", "λ = 2"), "", "not in the paper"),
        (("lambda", "1.1B-160B", "perplexity", "λ = 2"), "not run", "plotted only in the paper"),
        (("from_scratch", "300M-160B", "perplexity", "half @ 20B"), "", "plotted only in the paper"),
    ],
)
def test_what_is_missing_says_why(
    papers_report: PapersReport, where: tuple[str, ...], missing: str, unpublished: str
) -> None:
    found = cell(papers_report, *where)
    assert found.missing == missing
    assert unpublished in found.unpublished


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (("when", "300M-80B, 8 of 24 removed", "change of the average of 8, %", "at once"), "-2.40"),
        (("when", "300M-160B, 12 of 24 removed", "perplexity", "at once"), "23.0"),
        (("how_much", "300M-320B", "perplexity / before", "12 of 24"), "1.588"),
        (("lambda", "1.1B-160B", "perplexity", "λ = 1"), "17.3"),
        (("no_lm", "1.1B-160B, homotopic KD", "perplexity", "with LM loss"), "19.8"),
        (("from_scratch", "300M-160B", "average of 12", "compressed @ 20B"), "53.2"),
        (("where_v2", "1.1B-160B", "perplexity", "output"), "22.0"),
        (("main_v1", "300M-320B", "teacher-free", "SST-2"), "57.80"),
    ],
)
def test_what_other_tables_print_stands_where_a_figure_plots_it(
    papers_report: PapersReport, where: tuple[str, ...], text: str
) -> None:
    found = cell(papers_report, *where)
    assert found.published is not None and found.published.text == text


def test_ablations_find_their_runs(papers_report: PapersReport) -> None:
    for where, value in (
        (("lambda", "300M-160B", "perplexity", "λ = 2"), 31.1),
        (("when", "300M-160B, 12 of 24 removed", "perplexity", "100M apart"), 30.9),
        (("where_v2", "300M-160B", "perplexity", "output"), 40.0),
        (("how_much", "300M-160B", "perplexity", "12 of 24"), 31.5),
        (("from_scratch", "300M-160B", "perplexity", "half @ 160B"), 24.0),
        (("from_scratch", "300M-160B", "perplexity", "full @ 160B"), 20.0),
    ):
        found = cell(papers_report, *where)
        assert found.ours is not None and found.ours.mean == pytest.approx(value)


def test_runs_are_in_tables_or_named_with_a_reason(papers_report: PapersReport) -> None:
    assert len(papers_report.runs) == 8 + 1 + 4 + 1 + 2 + 1
    assert [(run.folder.name, why) for run, why in papers_report.others] == [("unlabelled <b>", "no --label")]
    damaged, going = papers_report.left_out
    assert "damaged/result.json is damaged" in damaged and "going holds no finished run" in going


def test_some_tasks_have_a_mean_on_both_sides(tmp_path: Path) -> None:
    label = ["model=300M", "checkpoint=160B"]
    scores = {100: {"piqa": 0.7, "sciq": 0.6, "blimp": 0.9}}
    write_experiment(tmp_path / "base", perplexity=16.0, label=label, evaluations=scores)
    scores = {100: {"piqa": 0.6, "sciq": 0.4, "cb": 0.5}}  # cb is not shared
    student = {"label": label, "layout": "max-gap", "removed": 12}
    write_experiment(tmp_path / "compressed", perplexity=23.0, evaluations=scores, **student)
    write_experiment(tmp_path / "seed2", perplexity=23.0, seed=2, **student)  # not evaluated: takes nothing away
    report = build_report(*find_runs([tmp_path]))
    found = cell(report, "main_v2", "300M-160B", "teacher-free", "average of the 2 evaluated")
    assert found.ours is not None and found.published is not None
    assert found.ours.values == (pytest.approx(50),)
    assert (found.published.text, found.published.value) == ("71.8", pytest.approx((66.8 + 76.7) / 2))
    (first_version,) = [table for table in report.tables if table.name == "main_v1"]
    assert len(first_version.columns) == 16  # of its models none was evaluated
