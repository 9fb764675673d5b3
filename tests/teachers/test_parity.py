"""Every layout gives the loss and gradients of plain PyTorch in float64; the long form is tests/teachers/parity.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teachers.parity import CASES, METHODS, Case, base_run, check

EVERYTHING = {
    "all": ["vanilla:temperature=2", "minilm", "hidden-states:weight=0.5", "embedding-table", "attention-scores"],
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[int, Path]:
    """Untrained models with large weights, by their number of layers."""
    sizes, folder = {case.removal.of for case in CASES}, tmp_path_factory.mktemp("teachers")
    return {size: base_run(folder / str(size), corpus, ["--num-layers", str(size)]) for size in sizes}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layouts(case: Case, teachers: dict[int, Path], corpus: Path, tmp_path: Path) -> None:
    for agreement in check(case, teachers[case.removal.of], corpus, tmp_path, EVERYTHING).values():
        assert agreement.loss < 1e-5 and agreement.gradient < 1e-5


def test_methods(teachers: dict[int, Path], corpus: Path, tmp_path: Path) -> None:
    found = check(Case((1, 2, 1), (1, 1, 1)), teachers[6], corpus, tmp_path, METHODS)
    assert all(agreement.loss < 1e-5 and agreement.gradient < 1e-5 for agreement in found.values()), found
