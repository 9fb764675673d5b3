"""The programs in benchmarks/ can be started: each finds what it imports."""

from __future__ import annotations

import runpy
import sys

from tests.support.ranks import ranks
from tests.support.runs import ROOT

PROGRAMS = sorted((ROOT / "benchmarks").glob("*.py"))


@ranks(1)
def test_every_benchmark_finds_what_it_imports(rank: int) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    broken = {}
    for path in PROGRAMS:
        try:
            runpy.run_path(str(path), run_name="benchmark")
        except ImportError as error:
            broken[path.name] = str(error)
    assert len(PROGRAMS) > 15 and broken == {}
