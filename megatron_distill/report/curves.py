"""Loss curves of several runs in one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from megatron_distill.data.whole_file import written_whole

from .drawing import SERIES, SOFT, as_svg, dress, legend, short, title
from .records import RunRecord

COLOURS = {"base": SERIES[5], "compressed": SERIES[0], "scratch": SERIES[1]}
NAMES = {"base": "base", "compressed": "compressed", "scratch": "same size, from scratch"}


def draw_curves(path: Path, runs: dict[str, RunRecord], *, mark: dict[str, Any] | None = None) -> None:
    """PNG of validation loss over training tokens, training loss thin behind; `mark` is the truncated model."""
    figure = _figure(runs, mark)
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=160)


def curves_svg(runs: dict[str, RunRecord], *, mark: dict[str, Any] | None = None) -> str:
    """The same picture as an SVG element that stands in a page."""
    return as_svg(_figure(runs, mark))


def _figure(runs: dict[str, RunRecord], mark: dict[str, Any] | None) -> Any:
    # Figure without pyplot: no display, no state of the process.
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name, run in runs.items():
        colour = COLOURS.get(name, SERIES[2])
        tokens, losses = run.series("train")
        axes.plot(tokens, losses, color=colour, linewidth=0.8, alpha=0.35)
        tokens, losses = run.series("valid")
        axes.plot(tokens, losses, color=colour, linewidth=2, marker="o", markersize=3.5, label=NAMES.get(name, name))
    if mark is not None:
        loss = math.log(mark["perplexity"])
        axes.plot([0], [loss], marker="v", markersize=8, color=COLOURS["compressed"], linestyle="none")
        axes.annotate("just truncated", (0, loss), xytext=(9, -3), textcoords="offset points", color=SOFT)
    axes.set_xlabel("training tokens of the run")
    axes.set_ylabel("loss, nats a token")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    dress(axes)
    title(axes, "Validation loss (thin: training loss)")
    legend(axes)
    return figure
