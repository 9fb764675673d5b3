"""The papers' figures: perplexity over that of the model before, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .drawing import PAPER, SERIES, as_svg, dress, legend, short, title
from .experiments import Study
from .quantities import PERPLEXITY_RATIO
from .setting import HALF, METHOD_NAMES, Setting, base, main_v2
from .sweeps import Series, Sweep
from .table import Cell, Sides

_WIDTH, _HEIGHT = 5.2, 3.6
_SETTLED = 0.06
"""Losses before this share of the longest curve would leave no room for the rest."""


def sweep_figure(sides: Sides, sweep: Sweep) -> str:
    """A panel a model: ours with standard deviations, published values hollow; empty if there is neither."""
    panels: dict[str, list[tuple[Series, list[Cell]]]] = {}
    for series in sweep.series:
        cells = [sides.cell(setting, PERPLEXITY_RATIO, sweep.sources) for setting in series.settings.values()]
        if any(cell.ours or cell.published for cell in cells):
            panels.setdefault(series.panel, []).append((series, cells))
    if not panels:
        return ""
    figure, all_axes = _panels(len(panels))
    for axes, (model, curves) in zip(all_axes, panels.items(), strict=True):
        for i, (series, cells) in enumerate(curves):
            shift = 0.12 * (i - (len(curves) - 1) / 2)
            _points(axes, series.label, cells, SERIES[i], shift, joined=sweep.ordered)
        axes.set_xticks(range(len(sweep.columns)), sweep.columns, rotation=30 if len(sweep.columns) > 5 else 0)
        axes.set_xlim(-0.5, len(sweep.columns) - 0.5)
        axes.margins(y=0.15)
        _finish(axes, model, "perplexity over that before")
    return as_svg(figure)


def learning_curves(study: Study, *, scratch: bool) -> str:
    """Validation loss over the tokens of each run: of the methods, or of compression against half-size models from
    scratch. Empty if no such run is there."""
    panels = {model: _curves_of(study, model, scratch=scratch) for model in HALF}
    panels = {model: curves for model, curves in panels.items() if curves}
    if not panels:
        return ""
    figure, all_axes = _panels(len(panels))
    for axes, (model, curves) in zip(all_axes, panels.items(), strict=True):
        _draw_curves(axes, curves)
        _finish(axes, model, "validation loss, nats a token")
        axes.set_xlabel("tokens of the run")
    return as_svg(figure)


Curves = Mapping[str, list[tuple[list[int], list[float]]]]
"""By label, a curve a seed."""


def _curves_of(study: Study, model: str, *, scratch: bool) -> Curves:
    settings: dict[str, Setting]
    if scratch:
        half = HALF[model]
        settings = {
            f"{half} @ 160B": base(half),
            f"{half} @ 20B": base(half, "20B"),
            "compressed @ 20B": main_v2(model),
            f"{model} @ 160B": base(model),
        }
    else:
        settings = {name: main_v2(model, method) for method, name in METHOD_NAMES.items()}
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
            settled += [loss for at, loss in zip(tokens, losses, strict=True) if at >= _SETTLED * longest] or losses[
                -1:
            ]
    room = 0.06 * (max(settled) - min(settled)) or 0.1
    axes.set_ylim(min(settled) - room, max(settled) + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))


def _points(axes: Any, label: str, cells: Sequence[Cell], colour: str, shift: float, *, joined: bool) -> None:
    ours = [(i + shift, cell.ours) for i, cell in enumerate(cells) if cell.ours]
    if ours:
        axes.errorbar(
            [x for x, _ in ours],
            [found.mean for _, found in ours],
            yerr=[found.std or 0.0 for _, found in ours],
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


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * max(count, 1), _HEIGHT), layout="constrained")
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def _finish(axes: Any, model: str, ylabel: str) -> None:
    dress(axes)
    title(axes, model)
    axes.set_ylabel(ylabel)
    legend(axes, fontsize=8)
