"""Registered families and flavours x layouts: saved, loaded, resumed, resharded, evaluated, as a teacher."""

from __future__ import annotations

from tests.checkpoint.contract import LAYOUTS, run_contract

from .rows import Options, Row, spread, tell_progress

SECTION = "layouts"


def run(options: Options) -> list[Row]:
    """The contract of tests/checkpoint/contract.py; a row for each operation. A sample has one layout of one rank."""
    names = list(LAYOUTS) if options.sample is None else ["one"]
    checks = run_contract(names)
    rows = {operation: Row(SECTION, operation) for operation in dict.fromkeys(check.operation for check in checks)}
    for index in spread(checks, options.sample):
        check = checks[index]
        rows[check.operation].counts["equal" if check.ok else "failed"] += 1
        failure = "" if check.ok else f"{check.operation} of {check.item} on {check.layout}: {check.detail[:300]}"
        if failure:
            rows[check.operation].failures.append(failure)
        tell_progress(options, SECTION, index + 1, len(checks), failure)
    return list(rows.values())
