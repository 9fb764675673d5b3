"""The papers' figures: perplexity over that of the model before, means over tasks, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .drawing import PAPER, SERIES, as_svg, dress, legend, short, title
from .experiments import Study
from .quantities import PERPLEXITY_RATIO, Quantity
from .setting import HALF, METHOD_NAMES, Setting, base, main_v2
from .sweeps import Series, Sweep
from .table import Cell, Sides

_SIZE = (5.6, 3.7)
_WORTH_A_CURVE = 3
"""Published values that are shown although we have none."""
_SETTLED = 0.06
"""Losses before this share of the longest curve would leave no room for the rest."""


def sweep_figure(sides: Sides, sweep: Sweep) -> tuple[str, ...]:
    """SVGs for each model, of perplexities and of the mean over tasks that the sweep's tables have: ours with standard
    deviations, published values hollow; empty if there is neither."""
    panels: dict[tuple[str, Quantity], list[tuple[Series, list[Cell]]]] = {}
    for series in sweep.series:
        for quantity in (PERPLEXITY_RATIO, series.quantities[0]):
            cells = [sides.cell(setting, quantity, sweep.sources) for setting in series.settings.values()]
            if any(cell.ours for cell in cells) or sum(bool(cell.published) for cell in cells) >= _WORTH_A_CURVE:
                panels.setdefault((series.panel, quantity), []).append((series, cells))
    drawn = []
    for (model, quantity), curves in panels.items():
        figure, axes = _panel()
        for i, (series, cells) in enumerate(curves):
            shift = 0.12 * (i - (len(curves) - 1) / 2)
            label = series.label.removeprefix(f"{model}-")
            _points(axes, label, cells, SERIES[i], shift, joined=sweep.ordered)
        names = [column.replace(" @ ", "\n@ ") for column in sweep.columns]
        axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 6 else 0)
        axes.set_xlim(-0.5, len(sweep.columns) - 0.5)
        axes.margins(y=0.15)
        _finish(axes, model, quantity.title)
        drawn.append(as_svg(figure))
    return tuple(drawn)


def learning_curves(study: Study, *, scratch: bool) -> tuple[str, ...]:
    """SVGs for each model: validation loss over the tokens of each run, of the methods, or of compression against
    half-size models from scratch. Empty if no such run is there."""
    drawn = []
    for model in HALF:
        if curves := _curves_of(study, model, scratch=scratch):
            figure, axes = _panel()
            _draw_curves(axes, curves)
            axes.set_xlabel("tokens of the run")
            _finish(axes, model, "validation loss, nats a token")
            drawn.append(as_svg(figure))
    return tuple(drawn)


Curves = Mapping[str, list[tuple[list[int], list[float]]]]
"""By label, a curve a seed."""


def _curves_of(study: Study, model: str, *, scratch: bool) -> Curves:
    half = HALF[model]
    settings: dict[str, Setting] = {name: main_v2(model, method) for method, name in METHOD_NAMES.items()}
    if scratch:
        settings = {
            f"{half} @ 160B": base(half),
            f"{half} @ 20B": base(half, "20B"),
            "compressed @ 20B": main_v2(model),
            f"{model} @ 160B": base(model),
        }
    found = {
        label: [m.run.series("valid") for m in study.find(setting) if m.final] for label, setting in settings.items()
    }
    return {label: curves for label, curves in found.items() if any(len(tokens) > 1 for tokens, _ in curves)}


def _draw_curves(axes: Any, found: Curves) -> None:
    from matplotlib.ticker import FuncFormatter

    longest = max(tokens[-1] for curves in found.values() for tokens, _ in curves if tokens)
    settled: list[float] = []
    for i, (label, curves) in enumerate(found.items()):
        for j, (tokens, losses) in enumerate(curves):
            axes.plot(tokens, losses, color=SERIES[i], linewidth=1.6, alpha=0.9, label=None if j else label)
            late = [loss for at, loss in zip(tokens, losses, strict=True) if at >= _SETTLED * longest]
            settled += late or losses[-1:]
    room = 0.06 * (max(settled) - min(settled)) or 0.1
    axes.set_ylim(min(settled) - room, max(settled) + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))


def _points(axes: Any, label: str, cells: Sequence[Cell], colour: str, shift: float, *, joined: bool) -> None:
    ours = [(i + shift, cell.ours) for i, cell in enumerate(cells) if cell.ours]
    if ours:
        axes.errorbar(
            [x for x, _ in ours],
            [found.mean for _, found in ours],
            yerr=[found.std or math.nan for _, found in ours],
            fmt="o-" if joined else "o",
            color=colour,
            markersize=6,
            linewidth=1.4,
            capsize=3,
            label=label,
        )
    printed = [(i + shift, cell.published.value) for i, cell in enumerate(cells) if cell.published]
    if printed:
        xs, ys = zip(*printed, strict=True)
        axes.plot(xs, ys, "D", color=colour, markerfacecolor=PAPER, markersize=6, label=f"{label}, published")


def _panel() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _finish(axes: Any, model: str, ylabel: str) -> None:
    dress(axes)
    title(axes, model)
    axes.set_ylabel(ylabel)
    legend(axes, fontsize=8)
