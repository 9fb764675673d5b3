"""Whether our runs say what the papers say.

Two means are level if they differ by no more than the standard deviation of the difference of two runs. A setting with
one run is given the relative spread that settings with several typically have (`Study.typical_spread`), none if no
setting has several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .claims import Claim, Pair, all_claims, close_layouts
from .published import look_up
from .quantities import PERPLEXITY, Estimate, MissingError, Quantity, estimate
from .setting import Setting
from .table import Sides

AGREES, LEVEL, DISAGREES, NOT_RUN = "agrees", "within the seeds' spread", "disagrees", "not run"
_TABLES = ("v2_table3", "v2_table5", "v1_table3")


@dataclass(frozen=True)
class Check:
    """One comparison that could be made."""

    text: str
    """Our numbers, and the published ones where they are printed."""
    verdict: str


@dataclass(frozen=True)
class Finding:
    """A claim, our numbers, and the verdict over all of them."""

    claim: str
    source: str
    checks: tuple[Check, ...]
    possible: int
    """Comparisons that a full set of runs would allow."""

    @property
    def verdict(self) -> str:
        """Disagrees if any comparison does, agrees if all do."""
        found = {check.verdict for check in self.checks}
        return next((v for v in (DISAGREES, LEVEL, AGREES) if v in found), NOT_RUN)


def all_findings(sides: Sides) -> list[Finding]:
    """All claims of `claims.py`, judged; the one that three layouts lie close together comes behind that on output."""
    found = [_finding(sides, claim) for claim in all_claims()]
    position = 1 + [finding.claim for finding in found].index("Layers near the output are the worst to remove.")
    return [*found[:position], _close(sides), *found[position:]]


def _finding(sides: Sides, claim: Claim) -> Finding:
    checks = tuple(check for pair in claim.pairs for check in _check(sides, pair))
    return Finding(claim.text, claim.source, checks, len(claim.pairs))


def _check(sides: Sides, pair: Pair) -> Iterator[Check]:
    try:
        first, second = (estimate(sides.study, s, pair.quantity) for _, s in (pair.first, pair.second))
    except MissingError:
        return
    difference = second.mean - first.mean
    spread = _spread(sides, first, second)
    verdict = LEVEL if abs(difference) <= spread else AGREES if difference > 0 else DISAGREES
    sign = {AGREES: "<", LEVEL: "≈", DISAGREES: ">"}[verdict]
    named = [f"{name} {describe(e, pair.quantity)}" for (name, _), e in ((pair.first, first), (pair.second, second))]
    text = f"{pair.about}: {named[0]} {sign} {named[1]}"
    yield Check(text + _printed(sides, pair.quantity, pair.first[1], pair.second[1]), verdict)


def _close(sides: Sides) -> Finding:
    """Whether max-gap, input and both differ less from each other than output differs from the worst of them."""
    checks, possible = [], 0
    for label, layouts in close_layouts():
        possible += 1
        try:
            found = {name: estimate(sides.study, setting, PERPLEXITY) for name, setting in layouts.items()}
        except MissingError:
            continue
        means = {name: e.mean for name, e in found.items()}
        output = means.pop("output")
        inside, outside = max(means.values()) - min(means.values()), output - max(means.values())
        verdict = AGREES if inside < outside else DISAGREES
        numbers = ", ".join(f"{name} {describe(e, PERPLEXITY)}" for name, e in found.items())
        checks.append(Check(f"{label}: {numbers}", verdict))
    text = "Max-gap, input and both lie closer together than to output."
    return Finding(text, "v1 and v2, Table 5", tuple(checks), possible)


def describe(found: Estimate, quantity: Quantity) -> str:
    """Mean, standard deviation and number of runs."""
    spread = "" if found.std is None else f" {quantity.spread(found.std)} ({len(found.values)})"
    return quantity.text(found.mean) + spread


def _spread(sides: Sides, *found: Estimate) -> float:
    typical = sides.study.typical_spread or 0.0
    return math.hypot(*(typical * e.mean if e.std is None else e.std for e in found))


def _printed(sides: Sides, quantity: Quantity, *settings: Setting) -> str:
    figures = [look_up(sides.published, setting, quantity.name, _TABLES) for setting in settings]
    printed = [figure.text for figure in figures if figure is not None]
    return f" (published {', '.join(printed)})" if len(printed) == len(settings) else ""
