"""Every family and flavour is saved, loaded, resharded, resumed, evaluated and teaches on every kind of layout."""

from __future__ import annotations

from megatron_distill.models.families.registry import all_families
from tests.checkpoint.contract import LAYOUTS, OPERATIONS, items, run_contract


def test_the_contract_holds_for_all_that_is_registered() -> None:
    rows = run_contract()
    failed = [row for row in rows if not row.ok]
    assert not failed, "\n".join(f"{r.item}, {r.layout}, {r.operation}: {r.detail}" for r in failed[:20])
    assert {row[:3] for row in rows} == {(i, la, o) for i in items() for la in LAYOUTS for o in OPERATIONS}
    assert {shape.family for shape in items().values()} >= all_families().keys() - {"palm_paper"}
