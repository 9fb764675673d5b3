"""The files a run leaves: `metrics.jsonl`, `result.json`, `run.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError


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

    def series(self, kind: str) -> tuple[list[int], list[float]]:
        """(tokens, loss in nats a token) of the rows of a kind: train or valid."""
        rows = [r for r in self.rows if r["kind"] == kind and isinstance(r.get("loss"), float)]
        return [r["consumed_tokens"] for r in rows], [r["loss"] for r in rows]


def read_run(folder: Path) -> RunRecord:
    """A run that has come to its end.

    Raises:
        ConfigError: no such run, or one that has not finished.
    """
    if not (folder / "result.json").exists():
        raise ConfigError(f"{folder} holds no finished run (there is no result.json); let it come to its end first")
    return RunRecord(
        folder=folder,
        result=json.loads((folder / "result.json").read_text()),
        run=json.loads((folder / "run.json").read_text()),
        rows=read_rows(folder / "metrics.jsonl"),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that a crash cut in two is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
