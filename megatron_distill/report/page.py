"""One HTML page that opens offline: the verdict, the table, the curves, and how the runs were made."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from .curves import curves_svg
from .records import RunRecord

_STYLE = """
:root { color-scheme: light dark; --ink: #111827; --soft: #4b5563; --line: #e5e7eb; --paper: #ffffff; --card: #f9fafb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #f3f4f6; --soft: #9ca3af; --line: #374151; --paper: #111827; --card: #1f2937; }
  figure { background: #f9fafb; border-radius: 8px; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 860px; padding: 40px 20px 80px; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 12px; }
h2 { font-size: 17px; margin: 36px 0 10px; }
p.verdict { font-size: 18px; color: var(--soft); margin: 0 0 28px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 14px; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { font-weight: 600; }
figure { margin: 0; padding: 8px; }
figure svg { width: 100%; height: auto; display: block; }
details { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; margin: 8px 0;
  background: var(--card); }
summary { cursor: pointer; }
pre { overflow-x: auto; font-size: 13px; line-height: 1.45; }
footer { color: var(--soft); font-size: 14px; margin-top: 40px; }
"""


def write_page(
    path: Path, rows: list[tuple[str, ...]], verdict: str, runs: dict[str, RunRecord], *, mark: dict[str, Any] | None
) -> None:
    """Write the page to `path`; nothing in it is fetched from anywhere."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Half the size: what was lost</title><style>{_STYLE}</style></head><body>",
        f"<h1>Half the size: what was lost</h1><p class=verdict>{html.escape(verdict)}</p>",
        f"<div class=wide>{_table(rows)}</div>",
        f"<h2>Loss curves</h2><figure>{curves_svg(runs, mark=mark)}</figure>",
        "<h2>How the runs were made</h2>",
        *(_details(name, run) for name, run in runs.items()),
        f"<footer>{html.escape(_provenance(runs))}</footer></body></html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


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
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['started']}, {run['device']}, {versions}, commit {run['commit'] or 'unknown'}"
