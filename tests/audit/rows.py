"""What a section of the audit found, in numbers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN_FAILURES = 20


@dataclass
class Row:
    """One line of the table: a subject, and how often each outcome was seen."""

    section: str
    subject: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """A sentence for each case that must not end as it did."""

    @property
    def cases(self) -> int:
        """All outcomes together."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Options:
    """How much a section does, and where."""

    folder: Path
    """An empty folder for what is made on the way."""
    sample: int | None = None
    """Cases to take, spread evenly; all if absent."""
    workers: int = 2
    """Cases at once."""
    subject: str = ""
    """Begins the subjects to take, of the section that has many; all if empty."""
    progress: bool = False
    """Whether to print on stderr how far a section is, and what failed so far."""


def tell_progress(options: Options, section: str, done: int, total: int, failure: str = "") -> None:
    """Print a failure at once, and every 200 cases how many are done."""
    if options.progress and (failure or done % 200 == 0):
        print(f"{section}: {done:,} of {total:,} {failure}".rstrip(), file=sys.stderr, flush=True)


def spread(cases: Sequence[object], sample: int | None) -> list[int]:
    """Indices of `sample` of the cases, at equal distances; of all of them without one."""
    if sample is None or sample >= len(cases):
        return list(range(len(cases)))
    return [index * len(cases) // sample for index in range(sample)]


def table(rows: Iterable[Row]) -> str:
    """Lines for people: section, subject, cases, outcomes, and the first failures."""
    rows = list(rows)
    widths = [max((len(text) for text in column), default=0) for column in zip(*map(_words, rows), strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(_words(row), widths, strict=True)) for row in rows]
    failures = [f"FAILED {row.section}: {text}" for row in rows for text in row.failures]
    more = [f"and {len(failures) - SHOWN_FAILURES} more"] if len(failures) > SHOWN_FAILURES else []
    return "\n".join([*(line.rstrip() for line in lines), *failures[:SHOWN_FAILURES], *more])


def _words(row: Row) -> tuple[str, str, str, str, str]:
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(row.counts.items()))
    verdict = f"{len(row.failures)} FAILED" if row.failures else "ok"
    return row.section, row.subject, f"{row.cases:,}", verdict, outcomes


def json_line(row: Row) -> str:
    """The row as one JSON object."""
    values = {"section": row.section, "subject": row.subject, "cases": row.cases, "outcomes": dict(row.counts)}
    return json.dumps(values | {"failures": row.failures})
