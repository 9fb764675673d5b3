"""A small sample of each section of the audit; `python -m tests.audit` is the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.rows import Options
from tests.audit.sections import SECTIONS


@pytest.mark.parametrize("section", SECTIONS)
def test_a_sample_has_no_failure(section: str, tmp_path: Path) -> None:
    rows = SECTIONS[section](Options(tmp_path / section, sample=12, workers=1, subject="", progress=False))
    assert sum(row.cases for row in rows) >= 12
    assert [failure for row in rows for failure in row.failures] == []
