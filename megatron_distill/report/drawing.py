"""How plots look, on paper and inside a page: one hand for all figures."""

from __future__ import annotations

import io
import re
from typing import Any

from .style import COLOURS

INK, SOFT, AXIS, GRID, PAPER = "#111827", "#374151", "#9ca3af", "#e5e7eb", "#fdfdfe"
SERIES = ("#0f766e", "#c2410c", "#4338ca", "#a16207", "#be185d", "#475569")
"""Colours of curves, told apart by hue and lightness."""

_VARIABLES = {INK: "ink", SOFT: "soft", AXIS: "axis", GRID: "line", PAPER: "paper"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES)
}
"""Names in `style.py`: a page in the dark has other values for them."""


def dress(axes: Any) -> None:
    """A light grid, two spines, no box."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(AXIS)
    axes.tick_params(colors=SOFT)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(SOFT)


def title(axes: Any, text: str) -> None:
    """Above the left end."""
    axes.set_title(text, loc="left", fontsize=11, color=INK)


def legend(axes: Any, **options: Any) -> None:
    """Without a frame, published values last."""
    entries = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: "published" in entry[1])
    axes.legend(*zip(*entries, strict=True), frameon=False, labelcolor=SOFT, **options)


def as_svg(figure: Any) -> str:
    """The figure as an SVG element that stands in a page, in the page's colours and its font."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "megatron_distill"}):
        buffer = io.StringIO()
        nameless = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # the same file from the same runs
        figure.savefig(buffer, format="svg", transparent=True, metadata=nameless)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{name}, {colour})")
    text = re.sub(r"('[\w ]+', )+sans-serif", "system-ui, sans-serif", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several figures of a page would repeat them
    width = float(re.search(r'width="([\d.]+)pt"', text)[1])  # type: ignore[index]
    return text.replace("<svg", f"<svg style='max-width: {width * 4 / 3:.0f}px'", 1)


def alone(svg: str) -> str:
    """What `as_svg` gave, as a file of its own: with the colours of both themes and their background."""
    svg = re.sub(r"<svg style='[^']*'", "<svg", svg)
    own = f"<style>{COLOURS}</style><rect width='100%' height='100%' style='fill: var(--paper)'/>"
    return svg.replace(">", f">{own}", 1)


def short(value: float) -> str:
    """A count in K, M or B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
