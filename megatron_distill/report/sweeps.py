"""The papers' ablations: one thing varies along the columns, the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from megatron_distill.pruning.where import LAYOUTS

from .quantities import AVERAGE_12, EIGHT_DROP, PERPLEXITY, PERPLEXITY_RATIO, Quantity
from .setting import GAPS, HALF, METHOD_NAMES, Setting, base, compressed, main_v2
from .table import NOT_IN_THE_PAPER, PLOTTED, Row, Sides, Table

_EIGHT = (EIGHT_DROP, PERPLEXITY, PERPLEXITY_RATIO)
_TWELVE = (AVERAGE_12, PERPLEXITY, PERPLEXITY_RATIO)


@dataclass(frozen=True)
class Series:
    """One curve of a figure, some rows of a table."""

    label: str
    settings: Mapping[str, Setting]
    """By column."""
    quantities: tuple[Quantity, ...] = _TWELVE
    plotted: tuple[Quantity, ...] = ()
    """Of these the paper has a figure without numbers."""

    @property
    def panel(self) -> str:
        """The model that it is about: one picture each."""
        return self.label.partition("-")[0]

    def unpublished(self, quantity: Quantity) -> str:
        """Why the paper has no number."""
        return PLOTTED if quantity in self.plotted else NOT_IN_THE_PAPER


@dataclass(frozen=True)
class Sweep:
    """An ablation."""

    name: str
    title: str
    source: str
    caption: str
    series: tuple[Series, ...]
    sources: tuple[str, ...]
    """Tables that print some of its models."""
    ordered: bool = False
    """Whether columns are amounts, so that a line may join them."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What varies."""
        return tuple(self.series[0].settings)

    def table(self, sides: Sides) -> Table:
        """Both sides of all cells."""
        rows = tuple(
            Row(
                (series.label, quantity.title),
                tuple(
                    sides.cell(setting, quantity, self.sources, series.unpublished(quantity))
                    for setting in series.settings.values()
                ),
            )
            for series in self.series
            for quantity in series.quantities
        )
        return Table(self.name, self.title, self.source, self.caption, ("model", ""), self.columns, rows)


def _layouts(model: str, checkpoint: str, removed: int, layouts: tuple[str, ...]) -> dict[str, Setting]:
    return {layout: compressed(model, checkpoint, layout, removed) for layout in layouts}


WHERE_V1 = Sweep(
    "where_v1",
    "Nine layouts, a third of the layers",
    "v1, Table 5",
    "Which layers leave, all at once, then 20B tokens without a teacher. The paper prints the change of the average of "
    "eight tasks in percent of what it was before; perplexity is ours alone.",
    tuple(
        Series(
            f"{model}-{checkpoint}, {removed} of 24 removed",
            _layouts(model, checkpoint, removed, tuple(LAYOUTS)),
            _EIGHT,
        )
        for model, checkpoint, removed in (("300M", "80B", 8), ("300M", "320B", 8), ("1.1B", "160B", 12))
    ),
    ("v1_table5",),
)
WHERE_V2 = Sweep(
    "where_v2",
    "Five layouts, half of the layers",
    "v2, Table 5",
    "12 of 24 layers leave at once, then 20B tokens without a teacher.",
    tuple(
        Series(
            f"{model}-160B",
            _layouts(model, "160B", 12, ("max-gap", "input", "output", "middle", "both")) | {"before": base(model)},
        )
        for model in HALF
    ),
    ("v2_table5",),
)
WHEN = Sweep(
    "when",
    "All at once or one by one",
    "v2, Figure 2 and v1, Figure 1",
    "Tokens between one removal and the next. At once is what the tables print; the rest is only plotted.",
    tuple(
        Series(
            f"{setting.model}-{setting.checkpoint}, {setting.removed} of 24 removed",
            {"at once" if gap == "0" else f"{gap} apart": replace(setting, gap=gap) for gap in GAPS},
            _TWELVE if setting.removed == 12 else _EIGHT,
            _TWELVE if setting.removed == 12 else (EIGHT_DROP,),
        )
        for setting in (
            main_v2("300M"),
            compressed("300M", "80B", "input", 8),
            compressed("300M", "320B", "input", 8),
            main_v2("1.1B"),
        )
    ),
    ("v2_table3", "v1_table5"),
    ordered=True,
)
HOW_MUCH = Sweep(
    "how_much",
    "Layers removed, model size, tokens seen",
    "v1, Figure 3",
    "Layers leave from the input. The paper plots changes in percent; its grid of checkpoints is not in its text.",
    tuple(
        Series(
            f"{model}-{checkpoint}",
            {f"{n} of 24": compressed(model, checkpoint, "input", n) for n in (4, 8, 12)},
            _EIGHT,
            (EIGHT_DROP, PERPLEXITY_RATIO),
        )
        for model, checkpoints in (("300M", ("40B", "80B", "160B", "320B")), ("1.1B", ("40B", "80B", "160B")))
        for checkpoint in checkpoints
    ),
    ("v1_table5", "v1_table3"),
    ordered=True,
)
LAMBDA = Sweep(
    "lambda",
    "More weight on distillation",
    "v2, Figure 3",
    "Vanilla distillation with λ times its loss. λ = 1 is the row of the main table; the paper's other values are not "
    "in its text: 2, 4 and 8 are ours. 300M is ours too.",
    tuple(
        Series(
            f"{model}-160B",
            {f"λ = {weight:g}": replace(main_v2(model, "vanilla"), weight=weight) for weight in (1.0, 2.0, 4.0, 8.0)},
            plotted=_TWELVE if model == "1.1B" else (),
        )
        for model in HALF
    ),
    ("v2_table3",),
    ordered=True,
)
NO_LM = Sweep(
    "no_lm",
    "Distillation without the language-model loss",
    "v2, Figure 4",
    "Distillation with and without the cross-entropy. With it, the rows are those of the main table. 300M is ours.",
    tuple(
        Series(
            f"{model}-160B, {METHOD_NAMES[method]}",
            {
                f"{word} LM loss": replace(main_v2(model, method), lm_weight=weight)
                for word, weight in (("with", 1.0), ("without", 0.0))
            },
            plotted=_TWELVE if model == "1.1B" else (),
        )
        for model in HALF
        for method in ("minilm", "homotopic")
    ),
    ("v2_table3",),
)
FROM_SCRATCH = Sweep(
    "from_scratch",
    "Train large, then compress? Or small from the start",
    "v2, Figure 5",
    "The model before compression, the half-size model from scratch on as many tokens, the compressed model, and the "
    "half-size model from scratch on the tokens of compression alone.",
    tuple(
        Series(
            f"{model}-160B",
            {
                "full @ 160B": base(model),
                "half @ 160B": base(half),
                "compressed @ 20B": main_v2(model),
                "half @ 20B": base(half, "20B"),
            },
            plotted=_TWELVE,
        )
        for model, half in HALF.items()
    ),
    ("v2_table3",),
)
METHODS_V2 = Sweep(
    "methods",
    "Methods",
    "v2, Table 3",
    "",
    tuple(
        Series(f"{model}-160B", {name: main_v2(model, method) for method, name in METHOD_NAMES.items()})
        for model in HALF
    ),
    ("v2_table3",),
)
"""The main results once more, as a figure alone."""

SWEEPS = (WHERE_V2, WHERE_V1, WHEN, HOW_MUCH, LAMBDA, NO_LM, FROM_SCRATCH)
