"""SIGKILL at random moments of training and saving: the run that comes of it is the uninterrupted one, bit for bit.

pytest tests/end_to_end/test_kills.py                                 a few kills
KILLS=30 pytest tests/end_to_end/test_kills.py                        thirty
KILLS=30 KILL_SEED=7 pytest tests/end_to_end/test_kills.py            at other moments
KILLED_RUN="..." pytest tests/end_to_end/test_kills.py -k any_run     thirty kills of a command line without --save
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.support.kills import kill_at_random
from tests.support.runs import SMALL, command, result, rows, start, trace

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("KILL_SEED", "1"))


def flags(corpus: Path, base: Path, run: Path) -> list[object]:
    """A compression that saves at every other step, so that many kills hit a save."""
    return [
        *(*SMALL, "--data-path", corpus, "--load", base, "--save", run, "--train-iters", 60, "--save-interval", 2),
        *("--pruning-layout", "max-gap", "--pruning-num-layers", 3, "--pruning-seed-tokens", 10 * 128),
        *("--pruning-gap-tokens", 5 * 128, "--optimizer", "lion", "--eval-interval", 8),
    ]


TEACHER = ["--loss", "vanilla", "minilm", "--teacher-placement"]
KINDS: dict[str, tuple[list[str], int]] = {  # flags, and ranks if torchrun starts them
    "waiting": ([], 0),
    "background": (["--async-save"], 0),
    "teacher": ([*TEACHER, "colocated", "--async-save"], 0),
    "separate": ([*TEACHER, "separate"], 2),
}


# Starting two ranks again and again takes long; test_distillation.py kills each of them once.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "separate" or "KILLS" in os.environ])
def test_killed_at_random_moments(kind: str, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    more, ranks = KINDS[kind]
    start(*flags(corpus, base_run, whole), *more, ranks=ranks)
    lively = command(*flags(corpus, base_run, run), *more, ranks=ranks)
    hits = kill_at_random(lively, tmp_path / "log", kills=KILLS, within_s=2.5, seed=SEED)
    assert hits, "no kill hit a running process"
    assert trace(run) == trace(whole)
    assert rows(run, "removal")[-1]["layers"] == rows(whole, "removal")[-1]["layers"]
    assert result(run)["perplexity"] == result(whole)["perplexity"]
    assert "damaged" not in (tmp_path / "log").read_text()


@pytest.mark.skipif("KILLED_RUN" not in os.environ, reason="give a command line in KILLED_RUN")
def test_any_run(tmp_path: Path) -> None:
    words = shlex.split(os.environ["KILLED_RUN"])
    whole, run = tmp_path / "whole", tmp_path / "run"
    kill_at_random([*words, "--save", str(whole)], tmp_path / "log", kills=0, within_s=0, seed=SEED)
    hits = kill_at_random([*words, "--save", str(run)], tmp_path / "log", kills=30, within_s=5, seed=SEED)
    assert hits
    assert trace(run) == trace(whole)
