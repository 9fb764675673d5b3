"""The report as Markdown: what was run, with its figures in files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from megatron_distill.config.escape import for_markdown
from megatron_distill.data.whole_file import write_whole

from .drawing import alone
from .findings import Finding
from .papers import Figure, PapersReport
from .stand_ins import rows, sentence
from .table import Cell, Table

NOTATION = (
    "A cell is ours / published (difference). Ours is the mean of the runs of a cell, ± their standard deviation and, "
    "in brackets, their number where there are several; amounts such as FLOPs are compared by a factor."
)


def write_markdown(path: Path, report: PapersReport) -> None:
    """Write the report to `path`, and its figures to the folder `figures` beside it."""
    folder = path.parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, drawings in report.figures.items():
        for stale in folder.glob(f"{name}-*.svg"):
            stale.unlink()
        for i, drawing in enumerate(drawings):
            write_whole(folder / _file(name, i), alone(drawing))
    write_whole(path, "\n".join(_lines(report)) + "\n")


def _lines(report: PapersReport) -> Iterator[str]:
    yield "# The papers' experiments, from our runs\n"
    yield "Published figures: arXiv:2305.14864, versions 1 and 2.\n"
    if text := sentence(report.stand_ins):
        yield f"**{for_markdown(text)}**\n"
    if report.stand_ins:
        yield from _grid(rows(report.stand_ins))
    yield "\n## What the papers say, and what these runs say\n"
    yield f"Perplexities, or perplexities over that before; lower is better. {report.spread}\n"
    for finding in report.findings:
        yield from _finding(finding)
    yield f"\n{NOTATION}\n"
    for _, name, parts in report.sections():
        yield f"\n## {name}"
        for part in parts:
            yield from _table(part) if isinstance(part, Table) else _figure(part)
    if report.others:
        yield "\n## Other runs\n"
        yield from _grid([("run", "perplexity", "why"), *other_rows(report)])
    if report.left_out:
        yield "\n## Left out\n"
        yield from (f"* {for_markdown(reason)}" for reason in report.left_out)


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
    yield f"\n### {table.title} ({table.source})\n\n{table.caption}\n"
    lines, without = [(*table.heads, *table.columns)], []
    for group, found in groupby(table.rows, key=lambda row: row.label[0]):
        of_group, empty = list(found), dict[str, list[str]]()
        for row in of_group:
            if any(cell.ours for cell in row.cells):
                lines.append((*row.label, *map(_cell, row.cells)))
            else:
                empty.setdefault(", ".join(dict.fromkeys(cell.missing for cell in row.cells)), []).append(row.label[1])
        for why, names in empty.items():
            which = "" if len(names) == len(of_group) else f", {', '.join(names)}"
            without.append(f"{group}{which} ({why})")
    if len(lines) > 1:
        yield from _grid(lines)
        yield ""
    if without:
        yield f"Without a number of ours, what is published is on the page: {'; '.join(without)}."


def _figure(figure: Figure) -> Iterator[str]:
    if figure.drawings:
        yield f"\n{figure.caption}\n"
        yield from (f"![{figure.name}](figures/{_file(figure.name, i)})" for i in range(len(figure.drawings)))


def _file(name: str, i: int) -> str:
    return f"{name}-{i + 1}.svg"


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
        yield "| " + " | ".join(for_markdown(part.replace("\u00ad", "")) for part in line) + " |"
        if i == 0:
            yield "|" + "---|" * len(line)
