"""One HTML page that opens offline: the verdict, the table, the curves, and how the runs were made."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from megatron_distill.data.whole_file import write_whole

from .curves import curves_svg
from .records import RunRecord
from .style import document

_STYLE = """
p.verdict { font-size: 18px; color: var(--soft); margin: 0 0 28px; }
tr.ours td { font-weight: 600; }
"""


def write_page(
    path: Path, rows: list[tuple[str, ...]], verdict: str, runs: dict[str, RunRecord], *, mark: dict[str, Any] | None
) -> None:
    """Write the page to `path`; nothing in it is fetched from anywhere."""
    title = "Half the size: what was lost"
    parts = [
        f"<h1>{title}</h1><p class=verdict>{html.escape(verdict)}</p>",
        f"<div class=wide>{_table(rows)}</div>",
        f"<h2>Loss curves</h2><figure>{curves_svg(runs, mark=mark)}</figure>",
        "<h2>How the runs were made</h2>",
        *(_details(name, run) for name, run in runs.items()),
        f"<footer>{html.escape(_provenance(runs))}</footer>",
    ]
    write_whole(path, document(title, "\n".join(parts), _STYLE))


def _table(rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr{' class=ours' if row[0] == 'compressed' else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _details(name: str, run: RunRecord) -> str:
    shown = {"result": run.result, "run": run.run}
    text = html.escape(json.dumps(shown, indent=1))
    seconds = run.result["seconds"]
    return (
        f"<details><summary>{html.escape(name)}: {run.result['tokens']:,} tokens in {seconds:,.0f} s of training, "
        f"{run.result['tokens_per_s']:,.0f} tokens/s</summary><pre>{text}</pre></details>"
    )


def _provenance(runs: dict[str, RunRecord]) -> str:
    run = next(iter(runs.values())).run
    versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    made = [run.get("started"), run.get("device"), versions, f"commit {run.get('commit') or 'unknown'}"]
    return ", ".join(part for part in made if part)
