"""The report as Markdown: tables and findings, without the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .findings import Finding
from .papers import PapersReport
from .stand_ins import rows, sentence
from .table import Cell, Table

NOTATION = (
    "A cell is ours / published (difference). Ours is the mean of the runs of a cell, ± their standard deviation and, "
    "in brackets, their number where there are several; amounts such as FLOPs are compared by a factor."
)


def write_markdown(path: Path, report: PapersReport) -> None:
    """Write the whole report to `path`."""
    path.write_text("\n".join(_lines(report)) + "\n", encoding="utf-8")


def _lines(report: PapersReport) -> Iterator[str]:
    yield "# The papers' experiments, from our runs\n"
    yield "Published figures: arXiv:2305.14864, versions 1 and 2.\n"
    if text := sentence(report.stand_ins):
        yield f"**{text}**\n"
    if report.stand_ins:
        yield from _grid(rows(report.stand_ins))
    yield "\n## What the papers say, and what these runs say\n"
    yield f"Perplexities, or perplexities over that before; lower is better. {report.spread}\n"
    for finding in report.findings:
        yield from _finding(finding)
    yield f"\n{NOTATION}\n"
    for table in report.tables:
        yield from _table(table)
    if report.others:
        yield "\n## Other runs\n"
        yield from _grid([("run", "perplexity", "why"), *other_rows(report)])
    if report.left_out:
        yield "\n## Left out\n"
        yield from (f"* {reason}" for reason in report.left_out)


def other_rows(report: PapersReport) -> list[tuple[str, ...]]:
    """(folder, perplexity, why) of the runs in no table."""
    found: list[tuple[str, ...]] = []
    for run, why in report.others:
        perplexity = run.result.get("perplexity")
        text = f"{perplexity:,.2f}" if isinstance(perplexity, int | float) else "unknown"
        found.append((str(run.folder), text, why))
    return found


def _finding(finding: Finding) -> Iterator[str]:
    compared = f"{len(finding.checks)} of {finding.possible} comparisons run"
    yield f"* **{finding.verdict}**: {finding.claim} ({finding.source}; {compared})"
    yield from (f"  * {check.text}: {check.verdict}" for check in finding.checks)


def _table(table: Table) -> Iterator[str]:
    yield f"\n## {table.title} ({table.source})\n\n{table.caption}\n"
    lines = [(*table.heads, *table.columns)]
    lines += [(*row.label, *map(_cell, row.cells)) for row in table.rows]
    yield from _grid(lines)


def _cell(cell: Cell) -> str:
    ours = cell.missing
    if cell.ours:
        ours = cell.quantity.text(cell.ours.mean)
        if cell.ours.std is not None:
            ours += f" {cell.quantity.spread(cell.ours.std)} ({len(cell.ours.values)})".replace("  ", " ")
    if cell.published is None:
        return f"{ours} / {cell.unpublished}"
    difference = ""
    if cell.ours:
        difference = f" ({cell.quantity.difference(cell.ours.mean, cell.published.value)})"
    return f"{ours} / {cell.published.text}{difference}"


def _grid(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield "| " + " | ".join(part.replace("|", "\\|").replace("\u00ad", "") for part in line) + " |"
        if i == 0:
            yield "|" + "---|" * len(line)
