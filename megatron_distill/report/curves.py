"""Loss curves of several runs in one picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from .records import RunRecord

COLOURS = {"base": "#6b7280", "compressed": "#0f766e", "scratch": "#c2410c"}
NAMES = {"base": "base", "compressed": "compressed", "scratch": "same size, from scratch"}


def draw_curves(path: Path, runs: dict[str, RunRecord], *, mark: dict[str, Any] | None = None) -> None:
    """PNG of validation loss over training tokens, training loss thin behind; `mark` is the truncated model."""
    figure = _figure(runs, mark)
    figure.savefig(path, dpi=160)


def curves_svg(runs: dict[str, RunRecord], *, mark: dict[str, Any] | None = None) -> str:
    """The same picture as an SVG element that stands in a page."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "megatron_distill"}):
        buffer = io.StringIO()
        _figure(runs, mark).savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(runs: dict[str, RunRecord], mark: dict[str, Any] | None) -> Any:
    # Figure without pyplot: no display, no state of the process.
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name, run in runs.items():
        colour = COLOURS.get(name, "#4338ca")
        tokens, losses = run.series("train")
        axes.plot(tokens, losses, color=colour, linewidth=0.8, alpha=0.35)
        tokens, losses = run.series("valid")
        axes.plot(tokens, losses, color=colour, linewidth=2, marker="o", markersize=3.5, label=NAMES.get(name, name))
    if mark is not None:
        loss = math.log(mark["perplexity"])
        axes.plot([0], [loss], marker="v", markersize=8, color=COLOURS["compressed"], linestyle="none")
        axes.annotate("just truncated", (0, loss), xytext=(9, -3), textcoords="offset points", color="#374151")
    axes.set_xlabel("training tokens of the run")
    axes.set_ylabel("loss, nats a token")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.grid(color="#e5e7eb", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    axes.tick_params(colors="#374151")
    axes.set_title("Validation loss (thin: training loss)", loc="left", fontsize=11, color="#111827")
    axes.legend(frameon=False)
    return figure


def _short(value: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
