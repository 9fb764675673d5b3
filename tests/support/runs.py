"""Whole runs of pretrain_distill.py, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.programs import ROOT, run_program

MODEL = ["--model", "palm-tiny", "--vocab-size", "60", "--make-vocab-size-divisible-by", "16"]
SMALL = [
    *("--seq-length", "32"),
    *("--micro-batch-size", "2", "--global-batch-size", "4", "--precision", "fp32", "--lr", "3e-3"),
    *("--log-interval", "1", "--eval-interval", "1000", "--eval-iters", "2", "--save-interval", "1000"),
]
"""Flags of a run that takes no time; later ones win."""


def environment() -> dict[str, str]:
    """One thread a rank, the package importable from wherever the tests run."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(*flags: object, ranks: int = 0) -> list[str]:
    """The command line of a run; by torchrun if `ranks` is given."""
    launcher = [sys.executable]
    if ranks:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, str(ROOT / "pretrain_distill.py"), *map(str, flags)]


def start(*flags: object, ranks: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return run_program("pretrain_distill.py", *flags, ranks=ranks, check=check)


def rows(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Lines of a kind of the run's metrics.jsonl."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] == kind]


def trace(run: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of every step: equal for equal runs, to the last bit."""
    return [(row["iteration"], row["loss"], row["grad_norm"]) for row in rows(run)]


def result(run: Path) -> dict[str, Any]:
    """The run's result.json."""
    return json.loads((run / "result.json").read_text())
