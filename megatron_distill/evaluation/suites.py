"""Which tasks there are, which figure of each the papers print, and over which of them they take a mean."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_distill.config.error import ConfigError

from .minimal_pairs import BLIMP, SUPPLEMENT


@dataclass(frozen=True)
class Figure:
    """The one number of a task that counts."""

    task: str
    """Its name in the harness."""
    metric: str


PAPER: dict[str, Figure] = {
    "piqa": Figure("paper_piqa", "acc_norm"),
    "hellaswag": Figure("paper_hellaswag", "acc_norm"),
    "winogrande": Figure("paper_winogrande", "acc"),
    "boolq": Figure("paper_boolq", "acc_norm"),
    "openbookqa": Figure("paper_openbookqa", "acc_norm"),
    "sciq": Figure("paper_sciq", "acc"),
    "arc_easy": Figure("paper_arc_easy", "acc"),
    "arc_challenge": Figure("paper_arc_challenge", "acc_pmi"),
    "copa": Figure("paper_copa", "acc"),
    "rte": Figure("paper_rte", "acc_norm"),
    "cb": Figure("paper_cb", "acc"),
    "mrpc": Figure("paper_mrpc", "f1"),
    "sst2": Figure("paper_sst2", "acc"),
}
"""In the order of the papers' tables (arXiv:2305.14864v1, Table 3)."""

AVERAGES: dict[str, tuple[str, ...]] = {
    "paper13": tuple(PAPER),
    "paper12": tuple(name for name in PAPER if name != "sst2"),
    "eight": ("piqa", "hellaswag", "winogrande", "openbookqa", "sciq", "arc_easy", "copa", "cb"),
    "blimp": tuple(f"blimp_{name}" for names in BLIMP.values() for name in names),
    "blimp_supplement": tuple(f"blimp_supplement_{name}" for name in SUPPLEMENT),
} | {f"blimp:{group}": tuple(f"blimp_{name}" for name in names) for group, names in BLIMP.items()}
"""Unweighted means of scores. v1 averages thirteen, v2 twelve; v1 does not name its "eight tasks far from random",
these are the nearest natural set."""

SUITES: dict[str, tuple[str, ...]] = {
    name: AVERAGES[name] for name in ("paper13", "paper12", "eight", "blimp", "blimp_supplement")
}
"""What `--tasks` takes for several tasks; each member may be named alone too."""

OTHER = ("perplexity", "rouge")
"""Tasks that are not the harness's."""


def expand(names: list[str]) -> list[str]:
    """Every single task that is named, once, in order. Names that are not ours are left as they are."""
    found: list[str] = []
    for name in names:
        found += SUITES.get(name.replace("-", "_"), (name,))
    return list(dict.fromkeys(found))


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is nearly one of OTHER, before anything slow is asked for other names."""
    for name in names:
        near = difflib.get_close_matches(name, OTHER, 1, cutoff=0.8)
        if near and name not in OTHER:
            raise ConfigError(f"no task is called {name}; did you mean {near[0]}?")


def figure_of(name: str) -> Figure:
    """The figure of a task; of one that is not ours, what the harness calls its accuracy."""
    if name in PAPER:
        return PAPER[name]
    return Figure(name, "acc")
