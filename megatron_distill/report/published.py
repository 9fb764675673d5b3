"""Figures that arXiv:2305.14864 prints in its two versions, keyed as ours are: `published/*.csv`, a file a table.

Accuracies are in percent (v1 prints shares), perplexities those of C4 with GPT-2's tokens, FLOPs and hours of the 20B
tokens after pruning, on A100-80GB. v1's Table 4 says 300M and 1.1B: taken as the models of its Table 3.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from .setting import Setting

SOURCES = ("v1_table3", "v1_table4", "v1_table5", "v2_table3", "v2_table4", "v2_table5")
MEAN_OF = "mean:"
"""Begins the name of a quantity that is a mean over tasks, whose names follow with + between."""
_KEYS = ("model", "checkpoint", "layout", "removed", "method")


@dataclass(frozen=True)
class Figure:
    """One published number."""

    value: float
    text: str
    """As it is printed; a ratio of two printed figures has three decimals."""
    source: str


Published = Mapping[tuple[str, Setting, str], Figure]
"""By source, setting and name of the quantity."""


def load_published() -> Published:
    """Everything that is printed."""
    found = {}
    for source in SOURCES:
        text = files(__package__).joinpath("published", f"{source}.csv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            setting = _setting(row)
            for quantity, printed in row.items():
                if quantity not in _KEYS and printed:
                    found[source, setting, quantity] = Figure(float(printed), printed, source)
    return found


def look_up(published: Published, setting: Setting, quantity: str, sources: Sequence[str]) -> Figure | None:
    """A figure of the first source that has it. The perplexity over that of the model before (`perplexity_ratio`) and
    means over chosen tasks are not printed but made here, of figures from one table."""
    for source in sources:
        if quantity == "perplexity_ratio":
            after, before = (published.get((source, s, "perplexity")) for s in (setting, setting.origin))
            if after is not None and before is not None:
                ratio = after.value / before.value
                return Figure(ratio, f"{ratio:.3f}", source)
        elif quantity.startswith(MEAN_OF):
            names = quantity.removeprefix(MEAN_OF).split("+")
            scores = [published[source, setting, name].value for name in names if (source, setting, name) in published]
            if len(scores) == len(names):
                mean = statistics.fmean(scores)
                return Figure(mean, f"{mean:.1f}", source)
        elif (source, setting, quantity) in published:
            return published[source, setting, quantity]
    return None


def _setting(row: Mapping[str, str]) -> Setting:
    if not row["layout"]:
        return Setting(model=row["model"], checkpoint=row["checkpoint"])
    return Setting(
        model=row["model"],
        checkpoint=row["checkpoint"],
        layout=row["layout"],
        removed=int(row["removed"]),
        method=row["method"],
    )
