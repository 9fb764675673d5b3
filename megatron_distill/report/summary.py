"""Compression in one table: the base, just truncated, compressed, and the same size from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.data.whole_file import write_whole

from .curves import draw_curves
from .experiments import finite, perplexity_of
from .page import write_page
from .records import RunRecord

Entries = dict[str, dict[str, Any]]

LABELS = {
    "base": "base",
    "truncated": "just truncated",
    "compressed": "compressed",
    "scratch": "from scratch",
}


_NEEDED = ("parameters", "tokens", "flops", "perplexity", "seconds", "tokens_per_s")


def check_complete(run: RunRecord) -> None:
    """Raise ConfigError if a run lacks what is compared: one without a validation has no perplexity."""
    lacks = [key for key in _NEEDED if finite(run.result.get(key)) is None]
    lacks += [f"{key} above 0" for key in ("perplexity", "parameters") if key not in lacks and run.result[key] <= 0]
    if lacks:
        hint = "; train it with a validation part (--split)" if "perplexity" in lacks else ""
        raise ConfigError(f"{run.folder / 'result.json'} has no {', '.join(lacks)}, which this report compares{hint}")


def summarise(base: RunRecord, compressed: RunRecord, scratch: RunRecord) -> Entries:
    """Parameters, training tokens, true FLOPs and validation perplexity of the four models.

    Tokens and FLOPs are those of the model's own run; the truncated and the compressed model also cost the base's.
    """
    for run in (base, compressed, scratch):
        check_complete(run)
    keys = ("parameters", "tokens", "flops", "perplexity")
    entries = {name: {k: run.result[k] for k in keys} for name, run in (("base", base), ("compressed", compressed))}
    truncated = {
        "parameters": compressed.result["parameters"],
        "tokens": 0,
        "flops": 0.0,
        "perplexity": perplexity_of(compressed.result.get("initial_perplexity")),
    }
    ours = {"base": entries["base"], "truncated": truncated, "compressed": entries["compressed"]}
    if truncated["perplexity"] is None:  # its first validation is missing
        del ours["truncated"]
    return ours | {"scratch": {k: scratch.result[k] for k in keys}}


def table_rows(entries: Entries) -> list[tuple[str, ...]]:
    """Header and one row a model, as text."""
    rows: list[tuple[str, ...]] = [("model", "parameters", "tokens", "FLOPs", "validation perplexity")]
    for name, e in entries.items():
        cells = (f"{e['parameters']:,}", f"{e['tokens']:,}", f"{e['flops']:.3g}", f"{e['perplexity']:,.2f}")
        rows.append((LABELS[name], *cells))
    return rows


def verdict(entries: Entries) -> str:
    """What the numbers say, in one or two sentences."""
    base, ours, scratch = (entries[k]["perplexity"] for k in ("base", "compressed", "scratch"))
    size = entries["compressed"]["parameters"] / entries["base"]["parameters"]
    better = "better" if ours < scratch else "WORSE"
    return (
        f"With {size:.0%} of the base's parameters the compressed model, which starts from the base and so also costs "
        f"what it cost, has perplexity {ours:,.2f}; the base has {base:,.2f}. A model of the same size trained from "
        f"scratch on the same {entries['scratch']['tokens']:,} tokens has {scratch:,.2f}: compressing is {better} by "
        f"{abs(scratch - ours) / scratch:.0%}."
    )


def write_summary(output: Path, runs: dict[str, RunRecord]) -> str:
    """Write summary.json, loss_curves.png and report.html to `output`; returns the table as text."""
    entries = summarise(runs["base"], runs["compressed"], runs["scratch"])
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "summary.json", json.dumps(entries, indent=1) + "\n")
    draw_curves(output / "loss_curves.png", runs, mark=entries.get("truncated"))
    write_page(output / "report.html", table_rows(entries), verdict(entries), runs, mark=entries.get("truncated"))
    return as_text(table_rows(entries)) + "\n\n" + verdict(entries)


def as_text(rows: list[tuple[str, ...]]) -> str:
    """Aligned columns, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
