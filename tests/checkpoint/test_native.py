"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from tests.support.ranks import ranks
from tests.support.runs import MODEL, SMALL, start
from tests.support.worlds import student


def checkpoints(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def flags(corpus: Path, run: Path, *more: object) -> list[object]:
    return [*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--train-iters", 10, "--save-interval", 2, *more]


def test_the_newest_are_kept(corpus: Path, tmp_path: Path) -> None:
    start(*flags(corpus, tmp_path / "two"))
    assert checkpoints(tmp_path / "two") == ["iter_0000008", "iter_0000010"]
    assert (tmp_path / "two" / "latest").read_text() == "iter_0000010\n"
    start(*flags(corpus, tmp_path / "all", "--keep-checkpoints", 0))
    assert checkpoints(tmp_path / "all") == [f"iter_{i:07d}" for i in (2, 4, 6, 8, 10)]


@ranks(1)
def test_a_save_that_was_cut_short_is_cleared_away(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import save_student

    leftover = tmp_path / "run" / "checkpoints" / ".partial_iter_0000004"
    leftover.mkdir(parents=True)
    (leftover / "junk").write_text("of a crash")
    with student(tmp_path / "run", corpus) as trained:
        folder = save_student(trained, TrainState(iteration=4))
        assert not (folder / "junk").exists()
        assert checkpoints(tmp_path / "run") == ["iter_0000004"]


@ranks(1)
def test_everything_comes_back(rank: int, tmp_path: Path, corpus: Path) -> None:
    """bf16 weights, fp32 master weights, both moments and the count of updates."""
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, save_student
    from tests.training.test_student import train

    options = ["--precision", "bf16", "--optimizer", "adamw", "--decay-semantics", "lr"]
    with student(tmp_path / "run", corpus, *options) as trained:
        state = TrainState()
        train(trained, state, 3)
        folder = save_student(trained, state)
        again = build_student(trained.plan, 3, weights=folder, with_optimizer=True)
        for a, b in zip(trained.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(a, b)
        pairs = list(
            zip(trained.optimizer.optimizer.state.items(), again.optimizer.optimizer.state.items(), strict=True)
        )
        assert len(pairs) == len(list(trained.model.parameters()))
        for (p, s), (q, t) in pairs:
            assert p.dtype == torch.float32
            assert torch.equal(p, q)
            assert not torch.equal(p, p.bfloat16().float()), "a master weight that is only a copy of a bf16 one"
            assert torch.equal(s["exp_avg"], t["exp_avg"])
            assert torch.equal(s["exp_avg_sq"], t["exp_avg_sq"])
            assert s["step"] == t["step"] == 3


def test_a_full_disk_leaves_the_last_checkpoint_whole(corpus: Path, small_disk: Path, tmp_path: Path) -> None:
    run = small_disk / "run"
    start(*flags(corpus, run, "--exit-interval", 2))
    assert (run / "latest").read_text() == "iter_0000002\n"
    free = shutil.disk_usage(small_disk).free
    (small_disk / "hog").write_bytes(os.urandom(free - 200_000))
    done = start(*flags(corpus, run), check=False)
    assert done.returncode == 1
    assert "the checkpoint iter_0000004 could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (run / "latest").read_text() == "iter_0000002\n"
    assert checkpoints(run) == ["iter_0000002"]
    (small_disk / "hog").unlink()
    start(*flags(corpus, run))
    assert (run / "latest").read_text() == "iter_0000010\n"
