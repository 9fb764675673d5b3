"""The files a run leaves: `metrics.jsonl`, `result.json`, `run.json`, `evaluation.json`; and where such runs lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.evaluation.results import FILE as EVALUATION

_SIGNS = ("run.json", "result.json", "metrics.jsonl")
"""A folder with one of these is a run's."""


@dataclass(frozen=True)
class RunRecord:
    """One finished run."""

    folder: Path
    result: dict[str, Any]
    """Parameters, tokens, FLOPs, perplexities, seconds."""
    run: dict[str, Any]
    """Configuration, versions, commit, device."""
    rows: list[dict[str, Any]]
    """Lines of metrics.jsonl, oldest first."""
    evaluations: dict[str, Any] = field(default_factory=dict)
    """Entries of evaluation.json by checkpoint (`iter_0000100`); empty where no task was evaluated."""

    def series(self, kind: str) -> tuple[list[int], list[float]]:
        """(tokens, loss in nats a token) of the rows of a kind: train or valid."""
        rows = [r for r in self.rows if r["kind"] == kind and isinstance(r.get("loss"), float)]
        rows = [r for r in rows if isinstance(r.get("consumed_tokens"), int)]
        return [r["consumed_tokens"] for r in rows], [r["loss"] for r in rows]


def read_run(folder: Path) -> RunRecord:
    """A run that has come to its end.

    Raises:
        ConfigError: no such run, one that has not finished, or one with a file that cannot be read.
    """
    if not (folder / "result.json").exists():
        raise ConfigError(f"{folder} holds no finished run (there is no result.json); let it come to its end first")
    evaluation = folder / EVALUATION
    return RunRecord(
        folder=folder,
        result=_read_object(folder / "result.json"),
        run=_read_object(folder / "run.json"),
        rows=read_rows(folder / "metrics.jsonl"),
        evaluations=_read_object(evaluation).get("models", {}) if evaluation.exists() else {},
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
        except (ConfigError, OSError) as error:
            left_out.append(str(error))
    if not runs:
        others = f" ({len(left_out)} not finished or not readable)" if left_out else ""
        raise ConfigError(
            f"there is no finished run in {', '.join(map(str, folders))}{others}; give folders of runs, or of folders "
            "of runs, that have come to their end"
        )
    return runs, left_out


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that a crash cut in two is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "kind" in row:
            rows.append(row)
    return rows


def _run_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; give folders of runs, or of folders of runs")
    for place, folders, files in os.walk(root):
        if any(sign in files for sign in _SIGNS):
            folders.clear()  # what lies under a run is the run's
            yield Path(place)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise ConfigError(f"{path} cannot be read ({reason}); repair it, or leave its run out") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} cannot be read (it is damaged); repair it, or leave its run out")
    return content
