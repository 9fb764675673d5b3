"""The tables as one CSV in the long format: a line a cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from megatron_distill.data.whole_file import write_whole

from .table import Cell, Table

COLUMNS = ("table", "row", "column", "ours", "ours_std", "seeds", "published", "difference", "missing", "runs")


def write_csv(path: Path, tables: Sequence[Table]) -> None:
    """Numbers are not rounded; accuracies are in percent; `runs` are folders, apart by semicolons."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in tables:
        for row, column, cell in table.cells():
            writer.writerow((table.name, ", ".join(row.label), column.replace("\u00ad", ""), *_numbers(cell)))
    write_whole(path, text.getvalue())


def _numbers(cell: Cell) -> tuple[object, ...]:
    ours, published = cell.ours, cell.published
    missing = [f"ours: {cell.missing}"] if cell.missing else []
    missing += [f"published: {cell.unpublished}"] if cell.unpublished else []
    return (
        ours.mean if ours else "",
        ours.std if ours and ours.std is not None else "",
        len(ours.values) if ours else 0,
        published.value if published else "",
        cell.difference if cell.difference is not None else "",
        "; ".join(missing),
        ";".join(map(str, ours.runs)) if ours else "",
    )
