"""A table with ours and the published value in every cell: what all writers write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .experiments import Study
from .published import Figure, Published, look_up
from .quantities import Estimate, MissingError, Quantity, estimate
from .setting import Setting

NOT_IN_THE_PAPER = "not in the paper"
PLOTTED = "plotted only in the paper"


@dataclass(frozen=True)
class Cell:
    """Of `ours` and `missing` one is given, and of `published` and `unpublished`."""

    quantity: Quantity
    ours: Estimate | None
    missing: str
    published: Figure | None
    unpublished: str

    @property
    def difference(self) -> float | None:
        """Ours less the published value."""
        if self.ours is None or self.published is None:
            return None
        return self.ours.mean - self.published.value

    @property
    def verdict(self) -> int:
        """1 if ours is better than the published value, -1 if it is worse, 0 if that cannot be said."""
        difference = self.quantity.better * (self.difference or 0.0)
        return (difference > 0) - (difference < 0)


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: tuple[str, ...]
    """As many parts as the table has `heads`."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table of the papers."""

    name: str
    title: str
    source: str
    """Where it is published."""
    caption: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def cells(self) -> Iterator[tuple[Row, str, Cell]]:
        """(row, column, cell), line by line."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                yield row, column, cell

    @property
    def runs(self) -> set[Path]:
        """Folders of the runs in it."""
        return {run for _, _, cell in self.cells() if cell.ours for run in cell.ours.runs}


@dataclass(frozen=True)
class Sides:
    """Our measurements and the papers' figures."""

    study: Study
    published: Published

    def cell(
        self, setting: Setting, quantity: Quantity, sources: Sequence[str], unpublished: str = NOT_IN_THE_PAPER
    ) -> Cell:
        """Both sides of a setting; `unpublished` says why the paper has no number where it has none."""
        ours, missing = None, ""
        try:
            ours = estimate(self.study, setting, quantity)
        except MissingError as error:
            missing = str(error)
        figure = look_up(self.published, setting, quantity.name, sources)
        return Cell(quantity, ours, missing, figure, "" if figure else unpublished)
