"""The files a run leaves: `metrics.jsonl`, `result.json`, `run.json`, `evaluation.json`; and where such runs lie."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import parse_json, read_json
from megatron_distill.evaluation.score_file import FILE as EVALUATION
from megatron_distill.evaluation.score_file import FORMAT, ScoreFile, read_scores
from megatron_distill.evaluation.weights import checkpoint_weights

from .record_files import MetricsLine, ResultFile, RunFile, Values

Content = TypeVar("Content")
_MOST_TOKENS = 1 << 62

_SIGNS = ("run.json", "result.json", "metrics.jsonl")
"""A folder with one of these is a run's."""


@dataclass(frozen=True)
class RunRecord:
    """One finished run."""

    folder: Path
    result: Values
    """Parameters, tokens, FLOPs, perplexities, seconds (`record_files.py: ResultFile`)."""
    run: Values
    """Configuration, versions, commit, device (`record_files.py: RunFile`)."""
    rows: list[Values]
    """Lines of metrics.jsonl, oldest first."""
    damaged_lines: int = 0
    """Lines of metrics.jsonl that are none, and do not count."""
    evaluations: ScoreFile = field(default_factory=lambda: ScoreFile(FORMAT, {}))

    @property
    def notes(self) -> list[str]:
        """A sentence if the run is in the report without some or all of its curves."""
        path = self.folder / "metrics.jsonl"
        if self.damaged_lines:
            return [f"{self.damaged_lines} damaged lines of {path}; the run is in the report"]
        return [] if self.rows else [f"the curves of {self.folder}, as {path} is empty; the run is in the report"]

    def scores(self, iteration: int) -> dict[str, float | None]:
        """Scores and means, by name, of the weights that the checkpoint of that step has now.

        Where it was removed, those of the last checkpoint of that name.
        """
        name = f"iter_{iteration:07d}"
        try:
            weights = checkpoint_weights(self.folder / "checkpoints" / name)
        except ConfigError:
            weights = None
        entry = self.evaluations.of(name, weights)
        return {task: score.value for task, score in (entry.scores | entry.averages).items()} if entry else {}

    def series(self, kind: str) -> tuple[list[int], list[float]]:
        """(tokens, loss in nats a token) of the rows of a kind: train or valid."""
        rows = [r for r in self.rows if r["kind"] == kind and _is_point(r)]
        return [r["consumed_tokens"] for r in rows], [r["loss"] for r in rows]


def _is_point(row: Values) -> bool:
    loss, tokens = row.get("loss"), row.get("consumed_tokens")
    return isinstance(loss, float) and math.isfinite(loss) and isinstance(tokens, int) and abs(tokens) < _MOST_TOKENS


def read_run(folder: Path) -> RunRecord:
    """A run that has come to its end.

    Raises:
        ConfigError: no such run, one that has not finished, or one with a file that cannot be read.
    """
    if not (folder / "result.json").exists():
        raise ConfigError(f"{folder} holds no finished run (there is no result.json); let it come to its end first")
    rows, damaged = read_rows(folder / "metrics.jsonl")
    return RunRecord(
        folder=folder,
        result=_read(folder / "result.json", ResultFile),
        run=_read(folder / "run.json", RunFile),
        rows=rows,
        damaged_lines=damaged,
        evaluations=_readable(folder / EVALUATION, read_scores),
    )


def find_runs(folders: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The finished runs at and under `folders`, and a sentence for each other one that says why it is left out.

    Raises:
        ConfigError: a folder that is not there, or no finished run in any of them.
    """
    runs, left_out = [], []
    for folder in sorted({found.resolve(): found for given in folders for found in _run_folders(given)}.values()):
        try:
            runs.append(read_run(folder))
        except ConfigError as error:
            left_out.append(str(error))
            continue
        left_out += runs[-1].notes
    if not runs:
        others = f" ({len(left_out)} not finished or not readable)" if left_out else ""
        raise ConfigError(
            f"there is no finished run in {', '.join(map(str, folders))}{others}; give folders of runs, or of folders "
            "of runs, that have come to their end"
        )
    return runs, left_out


def read_rows(path: Path) -> tuple[list[Values], int]:
    """The lines of a metrics.jsonl, and how many are damaged: one that a crash cut in two, or anything else.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    rows, damaged = [], 0
    for line in lines:
        try:
            parse_json(line, MetricsLine, path)
            rows.append(parse_json(line, Values, path))
        except ConfigError:
            damaged += 1
    return rows, damaged


def _run_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; give folders of runs, or of folders of runs")
    for place, folders, files in os.walk(root):
        if any(sign in files for sign in _SIGNS):
            folders.clear()  # what lies under a run is the run's
            yield Path(place)


def _read(path: Path, kind: type) -> Values:
    """A file's values, after a look at their types."""
    _readable(path, lambda path: read_json(path, kind))
    return _readable(path, lambda path: read_json(path, Values))


def _readable(path: Path, read: Callable[[Path], Content]) -> Content:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise _unreadable(path, error.strerror) from error
    except ConfigError as error:
        raise ConfigError(f"{error}; repair it, or leave its run out") from error


def _unreadable(path: Path, reason: str | None) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {reason}; repair it, or leave its run out")
