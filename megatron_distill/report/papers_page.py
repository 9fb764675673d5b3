"""One HTML page that opens offline: the papers' tables and figures with ours beside them."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from megatron_distill.data.whole_file import write_whole

from .experiments import seed_of
from .findings import AGREES, DISAGREES, LEVEL, NOT_RUN, Finding
from .markdown import other_rows
from .papers import CURVES, SECTIONS, Figure, PapersReport
from .stand_ins import rows, sentence
from .style import document
from .table import Cell, Table

_TITLE = "The papers' experiments, from our runs"
_CLASSES = {AGREES: "good", LEVEL: "level", DISAGREES: "bad", NOT_RUN: "none"}


def write_papers_page(path: Path, report: PapersReport) -> None:
    """Write the page to `path`; nothing in it is fetched from anywhere."""
    style = files(__package__).joinpath("papers_page.css").read_text(encoding="utf-8")
    write_whole(path, document(_TITLE, "\n".join(_body(report)), style))


def _body(report: PapersReport) -> Iterator[str]:
    yield "<header>"
    yield f"<h1>{_TITLE}</h1>"
    yield (
        "<p class=lead>Published figures are those of <i>Large Language Model Distillation Doesn’t Need a Teacher</i> "
        "(arXiv:2305.14864, v1) and <i>How To Train Your (Compressed) Large Language Model</i> (v2).</p>"
    )
    if text := sentence(report.stand_ins):
        yield f"<p class=warning>{html.escape(text)}</p>"
    yield "</header>"
    links = [("claims", "Claims"), *((anchor, name) for anchor, name, _ in SECTIONS), ("runs", "Runs")]
    yield "<nav>" + "".join(f"<a href='#{anchor}'>{name}</a>" for anchor, name in links) + "</nav>"
    if report.stand_ins:
        yield f"<div class=wide>{_grid(rows(report.stand_ins))}</div>"
    yield from _findings(report.findings, report.spread)
    yield _NOTATION
    for anchor, name, parts in report.sections():
        yield f"<section id={anchor}><h2>{name}</h2>"
        for part in parts:
            yield from _table(part) if isinstance(part, Table) else _figure(part)
        yield "</section>"
    yield from _runs(report)


_NOTATION = """<aside class=notation><table><tr><td><span class=ours>1.432</span><span class=std>± 0.004 (3)</span>
<span class=pub>1.420 <em class=bad>+0.012</em></span></td></tr></table>
<p>Large: ours, the mean of the runs of a cell, with their standard deviation and number where there are several.
Small beneath it: the published value and ours less it, green where ours is better, red where it is worse, grey where
that says nothing (perplexities of other texts, costs of other machines). Amounts such as FLOPs are compared by factors.
“Perplexity / before” is over that of the model before compression: in it small runs and the papers can be compared.
In figures, filled points are ours and hollow ones published.</p></aside>"""


def _findings(findings: Sequence[Finding], spread: str) -> Iterator[str]:
    counts = Counter(finding.verdict for finding in findings)
    pills = "".join(
        f"<span class='pill {kind}'>{verdict}: {counts[verdict]}</span> "
        for verdict, kind in _CLASSES.items()
        if counts[verdict]
    )
    yield "<section id=claims><h2>What the papers say, and what these runs say</h2>"
    yield f"<p class=tally>{pills}</p>"
    yield "<p class=caption>Numbers are perplexities, or perplexities over that before; lower is better. ≈ is"
    yield f" a difference within the spread of the seeds. {spread}</p><div class=findings>"
    for finding in findings:
        kind = _CLASSES[finding.verdict]
        yield f"<article><span class='pill {kind}'>{finding.verdict}</span><h3>{html.escape(finding.claim)}</h3>"
        yield f"<p class=source>{finding.source} · {len(finding.checks)} of {finding.possible} comparisons run</p>"
        if finding.checks:
            lines = "".join(
                f"<li class={_CLASSES[check.verdict]}>{html.escape(check.text)}</li>" for check in finding.checks
            )
            folded = "" if len(finding.checks) > 4 else " open"
            yield f"<details{folded}><summary>numbers</summary><ul>{lines}</ul></details>"
        yield "</article>"
    yield "</div></section>"


def _table(table: Table) -> Iterator[str]:
    yield f"<h3>{html.escape(table.title)} <span class=source>{html.escape(table.source)}</span></h3>"
    yield f"<p class=caption>{html.escape(table.caption)}</p>"
    kind = "cells many" if len(table.columns) > 9 else "cells"
    yield f"<div class=wide><table class='{kind}'><thead><tr><th></th>{_heads(table.columns)}</tr></thead><tbody>"
    for group, found in groupby(table.rows, key=lambda row: row.label[0]):
        lines, width = list(found), 1 + len(table.columns)
        empty = _why_empty([cell for row in lines for cell in row.cells])
        yield f"<tr class=group><th colspan={width}><span>{html.escape(group)}{empty}</span></th></tr>"
        for row in () if empty else lines:
            emphasis = " class=hero" if row.label[1] == "teacher-free" else ""
            cells = "".join(_cell(cell) for cell in row.cells)
            yield f"<tr{emphasis}><th>{html.escape(row.label[1])}</th>{cells}</tr>"
    yield "</tbody></table></div>"


def _why_empty(cells: Sequence[Cell]) -> str:
    """One remark in place of rows that have no number at all."""
    if any(cell.ours or cell.published for cell in cells):
        return ""
    reasons = ", ".join(dict.fromkeys(cell.missing for cell in cells))
    return f" <i class=missing>{html.escape(reasons)}, and no number is published</i>"


def _heads(columns: Sequence[str]) -> str:
    return "".join(f"<th>{html.escape(column)}</th>" for column in columns)


def _cell(cell: Cell) -> str:
    quantity = cell.quantity
    ours = f"<span class=missing>{html.escape(cell.missing)}</span>"
    if cell.ours:
        runs = html.escape("\n".join(map(str, cell.ours.runs)), quote=True)
        ours = f"<span class=ours title='{runs}'>{quantity.text(cell.ours.mean)}</span>"
        if cell.ours.std is not None:
            ours += f"<span class=std>{quantity.spread(cell.ours.std)} ({len(cell.ours.values)})</span>"
    if cell.published is None:
        return f"<td>{ours}<span class='pub why'>{html.escape(cell.unpublished)}</span></td>"
    difference = ""
    if cell.ours:
        kind = {1: "good", -1: "bad", 0: "none"}[cell.verdict]
        text = quantity.difference(cell.ours.mean, cell.published.value)
        difference = f" <em class={kind}>{text}</em>"
    published = html.escape(cell.published.text.replace("-", "−"))
    return f"<td>{ours}<span class=pub>{published}{difference}</span></td>"


def _figure(figure: Figure) -> Iterator[str]:
    if figure.drawings:
        drawings = "".join(figure.drawings)
        yield f"<figure>{drawings}<figcaption>{figure.caption}</figcaption></figure>"
    elif figure.name in CURVES:
        yield f"<p class=caption>{figure.caption}: not run.</p>"


def _runs(report: PapersReport) -> Iterator[str]:
    yield "<section id=runs><h2>Runs</h2>"
    lines: list[tuple[str, ...]] = [("folder", "parameters", "tokens", "perplexity", "seed", "device", "started")]
    for run in report.runs:
        result = run.result
        lines.append(
            (
                str(run.folder),
                f"{result['parameters']:,}",
                f"{result['tokens']:,}",
                f"{result['perplexity']:,.2f}" if isinstance(result.get("perplexity"), float) else "unknown",
                str(seed_of(run)),
                str(run.run.get("device")),
                str(run.run.get("started")),
            )
        )
    summary = f"<summary>{len(lines) - 1} runs in the tables</summary>"
    yield f"<details>{summary}<div class=wide>{_grid(lines)}</div></details>"
    if report.others:
        others = [("folder", "perplexity", "why"), *other_rows(report)]
        yield f"<h3>Other runs</h3><div class=wide>{_grid(others)}</div>"
    if report.left_out:
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in report.left_out)
        yield f"<h3>Left out</h3><ul>{reasons}</ul>"
    yield "</section>"
    versions = {f"{name} {version}" for run in report.runs for name, version in run.run.get("versions", {}).items()}
    commits = {str(run.run.get("commit"))[:12] for run in report.runs}
    made = f"{', '.join(sorted(versions))}; commit {', '.join(sorted(commits))}"
    yield f"<footer>{html.escape(made)}</footer>"


def _grid(lines: Sequence[Sequence[str]]) -> str:
    head = _heads(lines[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines[1:])
    return f"<table class=plain><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
