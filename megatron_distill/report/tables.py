"""The papers' tables: main results and costs here, ablations as in `sweeps.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from megatron_distill.evaluation.suites import AVERAGES

from .quantities import (
    ACCELERATOR_HOURS,
    ACCELERATORS,
    AVERAGE_12,
    AVERAGE_13,
    FLOPS,
    FLOPS_RATIO,
    HOURS,
    HOURS_RATIO,
    MFU,
    PAPER_FLOPS,
    PERPLEXITY,
    PERPLEXITY_RATIO,
    TOKENS_PER_S,
    Quantity,
    mean_over,
    tasks,
)
from .setting import HALF, METHOD_NAMES, Setting, main_v1, main_v2
from .sweeps import SWEEPS
from .table import Row, Sides, Table

_COSTS = (PAPER_FLOPS, FLOPS_RATIO, HOURS, HOURS_RATIO, ACCELERATORS)
_OUR_COSTS = (ACCELERATOR_HOURS, FLOPS, TOKENS_PER_S, MFU)
_V1_METHODS = ("vanilla", "none")
_V2_METHODS = ("vanilla", "minilm", "homotopic", "none")


def all_tables(sides: Sides) -> list[Table]:
    """Every table, in the order of the page."""
    sweeps = [sweep.table(sides) for sweep in SWEEPS]
    return [main_results_v2(sides), main_results_v1(sides), costs_v2(sides), costs_v1(sides), *sweeps]


def main_results_v2(sides: Sides) -> Table:
    """Twelve tasks, their mean, and perplexity."""
    some = _evaluated(sides, main_v2, _V2_METHODS, "paper12")
    quantities = (PERPLEXITY, PERPLEXITY_RATIO, AVERAGE_12, *some, *tasks("paper12"))
    caption = (
        "Half of the layers leave the model of 160B tokens (300M by max-gap, 1.1B by input); 20B tokens follow. "
        "Accuracies in percent, F1 for MRPC."
    )
    rows = _by_method(sides, main_v2, _V2_METHODS, quantities, "v2_table3", before=True)
    return _of_quantities("main_v2", "Twelve tasks and perplexity", "v2, Table 3", caption, quantities, rows)


def main_results_v1(sides: Sides) -> Table:
    """Thirteen tasks, their mean, and perplexity."""
    some = _evaluated(sides, main_v1, _V1_METHODS, "paper13")
    quantities = (PERPLEXITY, PERPLEXITY_RATIO, AVERAGE_13, *some, *tasks("paper13"))
    caption = "Half of the layers leave from the input; 20B tokens follow. Accuracies in percent, F1 for MRPC."
    rows = _by_method(sides, main_v1, _V1_METHODS, quantities, "v1_table3", before=True)
    return _of_quantities("main_v1", "Thirteen tasks and perplexity", "v1, Table 3", caption, quantities, rows)


def costs_v2(sides: Sides) -> Table:
    """FLOPs, hours and accelerators."""
    caption = (
        "FLOPs as the papers count them: 6 N D for the student, 2 N D for the teacher. True FLOPs count attention and "
        "the seed phase too. The papers' hours are of A100-80GB."
    )
    quantities = (*_COSTS, *_OUR_COSTS)
    rows = _by_method(sides, main_v2, _V2_METHODS, quantities, "v2_table4")
    return _of_quantities("costs_v2", "Costs", "v2, Table 4", caption, quantities, rows)


def costs_v1(sides: Sides) -> Table:
    """FLOPs, hours and accelerators, of the first version's runs."""
    caption = "The paper names the models 300M and 1.1B; they are taken as those of its Table 3."
    quantities = (*_COSTS, *_OUR_COSTS)
    rows = _by_method(sides, main_v1, _V1_METHODS, quantities, "v1_table4")
    return _of_quantities("costs_v1", "Costs, first version", "v1, Table 4", caption, quantities, rows)


def _evaluated(
    sides: Sides, setting_of: Callable[[str, str], Setting], methods: Sequence[str], average: str
) -> list[Quantity]:
    """The mean over the tasks that all evaluated models of a table share, if these are some and not all."""
    settings = {setting_of(model, method) for model in HALF for method in methods}
    settings |= {setting.origin for setting in settings}
    scored = [set(m.scores) for setting in settings for m in sides.study.find(setting) if m.scores]
    shared = [name for name in AVERAGES[average] if scored and all(name in scores for scores in scored)]
    return [mean_over(shared)] if 1 < len(shared) < len(AVERAGES[average]) else []


def _by_method(
    sides: Sides,
    setting_of: Callable[[str, str], Setting],
    methods: Sequence[str],
    quantities: Sequence[Quantity],
    source: str,
    *,
    before: bool = False,
) -> list[Row]:
    rows = []
    for model in HALF:
        settings = {METHOD_NAMES[method]: setting_of(model, method) for method in methods}
        origin = settings["teacher-free"].origin
        named = ({"before": origin} | settings) if before else settings
        for name, setting in named.items():
            cells = tuple(sides.cell(setting, quantity, (source,)) for quantity in quantities)
            rows.append(Row((f"{model}-{origin.checkpoint}", name), cells))
    return rows


def _of_quantities(
    name: str, title: str, source: str, caption: str, quantities: Sequence[Quantity], rows: Sequence[Row]
) -> Table:
    columns = tuple(quantity.title for quantity in quantities)
    return Table(name, title, source, caption, ("model", "method"), columns, tuple(rows))
