"""A rank of the student that is gone: the others end with a sentence, whatever they were doing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.cluster import Pids, forked
from tests.support.runs import MODEL, SMALL, start

LAYOUTS: dict[str, list[object]] = {
    "tensor": ["--tensor-model-parallel-size", 2],
    "pipeline": ["--pipeline-model-parallel-size", 2],
    "data": [],
    "data, background": ["--async-save"],
}


def flags(corpus: Path, run: Path, *more: object) -> list[object]:
    """A run that saves at every step."""
    long = ("--num-layers", 2, "--train-iters", 10_000, "--save-interval", 1)
    return [*MODEL, *SMALL, *long, "--data-path", corpus, "--save", run, *more]


def well_ended(codes: list[int], said: str) -> None:
    """The one that was left has a sentence, and does not take the lost one for a damaged file or a wrong input."""
    assert codes == [1, -signal.SIGKILL], said
    sentences = [line for line in said.splitlines() if line.startswith("pretrain_distill.py: ")]
    assert len(sentences) == 1 and "Traceback" not in said, said
    assert "rank 0 has lost another rank of the student (" in sentences[0] and "gloo/" not in sentences[0], said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_steps_and_saves(layout: str, corpus: Path, tmp_path: Path) -> None:
    def kill(pids: Pids) -> None:
        time.sleep(random.Random(layout).random() * 0.1)
        os.kill(pids[1], signal.SIGKILL)

    arguments = flags(corpus, tmp_path / "run", *LAYOUTS[layout])
    for row in (2, 4, 7):
        well_ended(*forked(*arguments, ranks=2, on_row=(row, kill)))


def test_while_a_checkpoint_is_loaded(corpus: Path, tmp_path: Path) -> None:
    """Reading it is collective, so the others would say that it cannot be loaded."""
    run = tmp_path / "run"
    start(*flags(corpus, run, "--exit-interval", 1))
    ended = []
    for pause in (0.22, 0.27, 0.32):
        begun = time.monotonic()

        def is_time(begun: float = begun, pause: float = pause) -> bool:
            return time.monotonic() - begun > pause

        codes, said = forked(
            *flags(corpus, run, *LAYOUTS["tensor"], "--distributed-timeout-minutes", 0.1),
            ranks=2,
            when=(is_time, lambda pids: os.kill(pids[1], signal.SIGKILL)),
        )
        assert codes[1] == -signal.SIGKILL and "Traceback" not in said and "cannot be loaded" not in said, said
        ended.append(codes[0])
    assert set(ended) <= {1, -signal.SIGKILL}, "killed before there is a world, it is not missed before a time-out"
