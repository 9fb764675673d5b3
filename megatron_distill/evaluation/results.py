"""What an evaluation found: a table for people, a file for the report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .suites import AVERAGES

FORMAT = 1
FILE = "evaluation.json"
"""In a run's folder; one entry for each checkpoint that was evaluated."""


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
    """What it was asked with, in a file of scores (`Evaluation.settings`)."""


@dataclass
class Results:
    """Of one model."""

    model: str
    iteration: int | None = None
    """Optimizer steps; None for a Hugging Face folder."""
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Tasks that did not run, and why."""

    def averages(self) -> dict[str, Score]:
        """Those means of which every task is there; their tasks' errors are independent."""
        found = {}
        for name, members in AVERAGES.items():
            if all(member in self.scores for member in members):
                parts = [self.scores[member] for member in members]
                errors = [part.stderr for part in parts]
                known = [error for error in errors if error is not None]
                stderr = math.hypot(*known) / len(parts) if len(known) == len(parts) else None
                value = math.fsum(part.value for part in parts) / len(parts)
                found[name] = Score("mean", value, stderr, sum(part.items for part in parts))
        return found


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
    return "\n".join(line.rstrip() for line in lines)


def _mean_is_there(results: Results, name: str) -> bool:
    """Whether a paradigm is in a mean that is shown, and so needs no line of its own."""
    return any(name in AVERAGES[mean] for mean in results.averages())


def _row(name: str, score: Score) -> tuple[str, str, str, str, str]:
    share = score.metric.startswith(("acc", "f1", "mean"))
    digits, factor = (1, 100) if share else (3, 1)
    error = "" if score.stderr is None else f"{factor * score.stderr:.{digits}f}"
    return name, score.metric, f"{factor * score.value:.{digits}f}", error, f"{score.items:,}"


def write(path: Path, results: Results) -> None:
    """Add `results` to the file: tasks that were evaluated before on the same checkpoint keep their scores."""
    content = _read(path)
    key = results.model if results.iteration is None else f"iter_{results.iteration:07d}"
    before = content["models"].get(key, {"scores": {}})
    taken = {name: dataclasses.replace(score, settings=results.settings) for name, score in results.scores.items()}
    scores = before["scores"] | {name: dataclasses.asdict(score) for name, score in taken.items()}
    merged = dataclasses.replace(results, scores={name: Score(**score) for name, score in scores.items()})
    content["models"][key] = {
        "model": results.model,
        "iteration": results.iteration,
        "scores": scores,
        "averages": {name: dataclasses.asdict(score) for name, score in merged.averages().items()},
        "failures": results.failures,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def known(path: Path, key: str, settings: dict[str, Any]) -> dict[str, Score]:
    """The scores in the file that the model, or the checkpoint of a run, got with the same settings."""
    scores = _read(path)["models"].get(key, {"scores": {}})["scores"]
    return {name: Score(**score) for name, score in scores.items() if score.get("settings") == settings}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        return content if content.get("format") == FORMAT else {"format": FORMAT, "models": {}}
    except (FileNotFoundError, ValueError, AttributeError):
        return {"format": FORMAT, "models": {}}


def said(failures: dict[str, str]) -> Iterable[str]:
    """One line for each task that failed."""
    return (f"{name}: {reason}" for name, reason in failures.items())
