"""Every family and flavour is saved, loaded, resharded, resumed, evaluated and teaches on kinds of layouts.

Here every model has two replicas, and our own flavours are on every layout of up to four ranks. All models on all
layouts are `python -m tests.checkpoint.contract`, which is also a section of `python -m tests.audit`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.checkpoint.contract import LAYOUTS, OPERATIONS, Row, items, run_contract

FLAVOURS = ("palm-tiny", "palm-tiny-paper")


def check(rows: list[Row], models: Sequence[str], layouts: Sequence[str]) -> None:
    failed = [row for row in rows if not row.ok]
    assert not failed, "\n".join(f"{r.item}, {r.layout}, {r.operation}: {r.detail}" for r in failed[:20])
    assert {row[:3] for row in rows} == {(m, la, o) for m in models for la in layouts for o in OPERATIONS}


def test_every_model_has_two_replicas() -> None:
    check(run_contract(["DP 2"]), list(items()), ["DP 2"])


def test_both_flavours_are_on_every_layout_of_up_to_four_ranks() -> None:
    layouts = [name for name, layout in LAYOUTS.items() if 1 < layout.ranks <= 4]
    check(run_contract(layouts, FLAVOURS), FLAVOURS, layouts)
