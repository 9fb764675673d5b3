"""Every layout gives loss and gradients of plain PyTorch in float64; the long form: tests/teachers/parity.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teachers.parity import CASES, METHODS, Case, base_run, check

EVERYTHING = {
    "all": ["vanilla:temperature=2", "minilm", "hidden-states:weight=0.5", "embedding-table", "attention-scores"],
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """An untrained model with large weights."""
    return base_run(tmp_path_factory.mktemp("teacher"), corpus)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layouts(case: Case, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    for agreement in check(case, teacher, corpus, tmp_path, EVERYTHING).values():
        assert agreement.loss < 1e-5 and agreement.gradient < 1e-5


def test_methods(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    found = check(Case((1, 2, 1), (1, 1, 1)), teacher, corpus, tmp_path, METHODS)
    assert all(agreement.loss < 1e-5 and agreement.gradient < 1e-5 for agreement in found.values()), found
