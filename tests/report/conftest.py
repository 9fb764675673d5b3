"""The report on one small study, built once for all that look at it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.report.papers import PapersReport, build_report
from megatron_distill.report.published import load_published
from megatron_distill.report.records import find_runs
from megatron_distill.report.table import Sides
from tests.support.records import write_run, write_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the papers, one without labels, one that has not finished, and one that is damaged."""
    folder = write_study(tmp_path_factory.mktemp("report") / "runs")
    write_run(folder / "unlabelled <b>", "base")
    (folder / "going").mkdir()
    (folder / "going" / "run.json").write_text("{}")
    damaged = write_run(folder / "damaged", "base")
    (damaged / "result.json").write_text(json.dumps({"perplexity": 1.0})[:-5])
    return folder


@pytest.fixture(scope="session")
def papers_report(study_folder: Path) -> PapersReport:
    """Of `study_folder`."""
    return build_report(*find_runs([study_folder]))


@pytest.fixture(scope="session")
def sides(papers_report: PapersReport) -> Sides:
    """Measurements of `study_folder` and the papers'."""
    return Sides(papers_report.study, load_published())
