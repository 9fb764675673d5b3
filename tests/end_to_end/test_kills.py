"""SIGKILL at random moments of training and saving: the run that comes of it is the uninterrupted one, bit for bit.

pytest tests/end_to_end/test_kills.py                                 a few kills
KILLS=30 pytest tests/end_to_end/test_kills.py                        thirty
KILLS=30 KILL_SEED=7 pytest tests/end_to_end/test_kills.py            at other moments
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.kills import kill_at_random
from tests.support.runs import SMALL, result, rows, start, trace

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("KILL_SEED", "1"))
WITHIN_S = 2.5


def flags(corpus: Path, base: Path, run: Path) -> list[object]:
    """A compression that saves at every other step, so that many kills hit a save."""
    return [
        *(*SMALL, "--data-path", corpus, "--load", base, "--save", run, "--train-iters", 60, "--save-interval", 2),
        *("--pruning-layout", "1,3,4", "--pruning-seed-tokens", 10 * 128),
        *("--pruning-gap-tokens", 5 * 128, "--optimizer", "lion", "--eval-interval", 8),
    ]


TEACHER = ["--loss", "vanilla", "minilm", "--teacher-placement"]
STAGES = "--pipeline-model-parallel-size"
KINDS: dict[str, tuple[list[object], int]] = {  # flags, and ranks of the job
    "waiting": ([], 0),
    "background": (["--async-save"], 0),
    "teacher": ([*TEACHER, "colocated", "--async-save"], 0),
    "separate": ([*TEACHER, "separate"], 2),
    # The second of three stages holds nothing but layers that will leave.
    "frozen stage": ([STAGES, 3, "--pruning-layout", "2-4"], 3),
    "frozen stage, teacher": ([STAGES, 3, "--pruning-layout", "2-4", *TEACHER, "separate"], 4),
    "four stages": ([STAGES, 4, "--pruning-layout", "1,4", "--pruning-seed-tokens", 0, "--pruning-gap-tokens", 0], 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    more, ranks = KINDS[kind]
    start(*flags(corpus, base_run, whole), *more, ranks=ranks)
    words = [*flags(corpus, base_run, run), *more]
    hits, said = kill_at_random(*words, ranks=ranks, kills=KILLS, within_s=WITHIN_S, seed=SEED)
    assert hits, "no kill hit a running process"
    assert trace(run) == trace(whole)
    assert [row["layers"] for row in rows(run, "removal")] == [row["layers"] for row in rows(whole, "removal")]
    assert result(run)["perplexity"] == result(whole)["perplexity"]
    assert "damaged" not in said and "state dict differs" not in said
