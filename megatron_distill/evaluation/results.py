"""What an evaluation found, and as a table for people; `score_file.py` keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .suites import AVERAGES

_OF_ALL = ("limit", "precision", "backend", "seq_length", "tokenizer")
"""Settings that all scores of a mean must share."""


@dataclass(frozen=True)
class Score:
    """One task."""

    metric: str
    value: float
    stderr: float | None
    items: int
    all: dict[str, float] = field(default_factory=dict)
    """The other metrics too."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was asked with, contents of files included (`Evaluation.settings_of`)."""
    task: str = ""
    """The task that gave it, if that has another name: `perplexity` gives `bits_per_byte` too."""
    note: str = ""
    """What a reader must know, such as requests that did not fit."""


@dataclass
class Results:
    """Of one model."""

    model: str
    iteration: int | None = None
    """Optimizer steps; None for a Hugging Face folder."""
    weights: str | None = None
    """Fingerprint of the weights that were read; None in old files of scores."""
    scores: dict[str, Score] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Tasks that did not run, and why."""

    def take(self, task: str, scores: dict[str, Score], settings: dict[str, Any]) -> None:
        """Add what a task gave."""
        self.scores |= {name: replace(score, settings=settings, task=task) for name, score in scores.items()}

    def averages(self) -> dict[str, Score]:
        """Those means of which every task is there, taken with the same settings; the tasks' errors are independent."""
        found = {}
        for name, members in AVERAGES.items():
            parts = [self.scores[member] for member in members if member in self.scores]
            if len(parts) == len(members) and all(_alike(parts[0], part) for part in parts):
                errors = [part.stderr for part in parts]
                known = [error for error in errors if error is not None]
                stderr = math.hypot(*known) / len(parts) if len(known) == len(parts) else None
                value = math.fsum(part.value for part in parts) / len(parts)
                found[name] = Score("mean", value, stderr, sum(part.items for part in parts))
        return found


def _alike(one: Score, other: Score) -> bool:
    """Whether two scores may be in one mean."""
    return all(without_paths(one.settings.get(key)) == without_paths(other.settings.get(key)) for key in _OF_ALL)


def without_paths(settings: Any) -> Any:
    """Settings without what does not change a score: where a file lies, of which the content is known."""
    if not isinstance(settings, dict):
        return settings
    return {key: without_paths(value) for key, value in settings.items() if key != "path"}


def table(results: Results) -> str:
    """Scores, means and failures in lines."""
    rows = [("task", "metric", "score", "+-", "items")]
    shown = {n: s for n, s in results.scores.items() if not (n.startswith("blimp_") and _mean_is_there(results, n))}
    rows += [_row(name, score) for name, score in (*shown.items(), *results.averages().items())]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  "
        + "  ".join(f"{text:>{width}}" for text, width in zip(row[2:], widths[2:], strict=True))
        for row in rows
    ]
    notes = (f"{name}: {score.note}" for name, score in shown.items() if score.note)
    return "\n".join([*(line.rstrip() for line in lines), *notes])


def _mean_is_there(results: Results, name: str) -> bool:
    """Whether a paradigm is in a mean that is shown, and so needs no line of its own."""
    return any(name in AVERAGES[mean] for mean in results.averages())


def _row(name: str, score: Score) -> tuple[str, str, str, str, str]:
    share = score.metric.startswith(("acc", "f1", "mean"))
    digits, factor = (1, 100) if share else (3, 1)
    error = "" if score.stderr is None else f"{factor * score.stderr:.{digits}f}"
    return name, score.metric, f"{factor * score.value:.{digits}f}", error, f"{score.items:,}"


def said(failures: dict[str, str]) -> Iterable[str]:
    """One line for each task that failed."""
    return (f"{name}: {reason}" for name, reason in failures.items())
