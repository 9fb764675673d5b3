"""The papers' tables and figures rebuilt from runs: everything that the page, the Markdown and the CSV say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .experiments import Study, arrange
from .figures import learning_curves, sweep_figure
from .findings import Finding, all_findings
from .published import load_published
from .records import RunRecord
from .stand_ins import StandIn, stand_ins
from .sweeps import METHODS_V2, SWEEPS
from .table import Sides, Table
from .tables import all_tables

SECTIONS = (
    ("main", "Main results", ("main_v2", "methods", "main_v1")),
    ("cost", "FLOPs and hours", ("costs_v2", "costs_v1")),
    ("where", "Where", ("where_v2", "where_v1")),
    ("when", "When", ("when",)),
    ("how-much", "How much", ("how_much",)),
    ("lambda", "Lambda", ("lambda",)),
    ("no-lm", "No LM loss", ("no_lm",)),
    ("scratch", "From scratch", ("from_scratch", "curves_scratch")),
    ("curves", "Learning curves", ("curves_methods",)),
)
"""(anchor, name, tables and figures): what has one name has both, the table first."""
CURVES = {
    "curves_methods": "Validation loss of the methods, a line a seed",
    "curves_scratch": "Validation loss of compression and of half the size from scratch (v2, Figure 6)",
}
"""What the figures without a table show."""


@dataclass(frozen=True)
class Figure:
    """Drawings under one caption."""

    name: str
    drawings: tuple[str, ...]
    """SVGs; none where nothing ran."""

    @property
    def caption(self) -> str:
        """What they show."""
        return CURVES.get(self.name, "Filled: ours, with standard deviations; hollow: published.")


@dataclass(frozen=True)
class PapersReport:
    """What there is to say."""

    study: Study
    tables: tuple[Table, ...]
    findings: tuple[Finding, ...]
    figures: Mapping[str, tuple[str, ...]]
    """SVGs by name: of sweeps, `methods`, `curves_methods`, `curves_scratch`; none where nothing ran."""
    stand_ins: tuple[StandIn, ...]
    others: tuple[tuple[RunRecord, str], ...]
    """Runs that are in no table, and why."""
    left_out: tuple[str, ...]
    """Runs that could not be read, a sentence each."""

    @property
    def spread(self) -> str:
        """How far seeds lie apart, which decides what counts as a difference."""
        typical = self.study.typical_spread
        if typical is None:
            return "No setting was run with several seeds: any difference counts, however small."
        return f"Seeds of one setting typically spread by {100 * typical:.2g} % of their perplexity."

    def sections(self) -> Iterator[tuple[str, str, list[Table | Figure]]]:
        """(anchor, name, tables and figures) in the order in which all forms of the report have them."""
        tables = {table.name: table for table in self.tables}
        for anchor, name, parts in SECTIONS:
            found: list[Table | Figure] = []
            for part in parts:
                if part in tables:
                    found.append(tables[part])
                if part in self.figures:
                    found.append(Figure(part, self.figures[part]))
            yield anchor, name, found

    @property
    def runs(self) -> list[RunRecord]:
        """Those in the tables, in the order of their folders."""
        used = set().union(*(table.runs for table in self.tables))
        found = {m.run.folder: m.run for measured in self.study.measured.values() for m in measured}
        return [found[folder] for folder in sorted(used)]


def build_report(runs: Sequence[RunRecord], left_out: Sequence[str] = ()) -> PapersReport:
    """Match runs to the papers' cells and draw everything."""
    study = arrange(runs)
    sides = Sides(study, load_published())
    tables = tuple(all_tables(sides))
    figures = {sweep.name: sweep_figure(sides, sweep) for sweep in (METHODS_V2, *SWEEPS)}
    figures["curves_methods"] = learning_curves(study, scratch=False)
    figures["curves_scratch"] = learning_curves(study, scratch=True)
    return PapersReport(
        study=study,
        tables=tables,
        findings=tuple(all_findings(sides)),
        figures=figures,
        stand_ins=tuple(stand_ins(study)),
        others=(*study.outside, *_unused(study, tables)),
        left_out=tuple(left_out),
    )


def _unused(study: Study, tables: Sequence[Table]) -> list[tuple[RunRecord, str]]:
    used: set[Path] = set().union(*(table.runs for table in tables))
    placed = {m.run.folder: m.run for measured in study.measured.values() for m in measured}
    return [(run, "in no table of the papers") for folder, run in sorted(placed.items()) if folder not in used]
