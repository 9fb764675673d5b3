"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from megatron_distill.checkpoint.manifest import read_latest
from tests.support.cluster import Pids, forked
from tests.support.ranks import ranks
from tests.support.runs import MODEL, SMALL, trace
from tests.support.worlds import student


def checkpoints(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def flags(corpus: Path, run: Path, *more: object) -> list[object]:
    """A run that saves at almost every step, in the background, and loses layers on its way."""
    return [
        *(*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--train-iters", 10, "--save-interval", 1),
        *("--async-save", "--num-layers", 6, "--pruning-layout", "1,3", "--pruning-seed-tokens", 3 * 128),
        *("--pruning-gap-tokens", 2 * 128, "--optimizer", "adamw", "--decay-semantics", "lr", *more),
    ]


@ranks(2)
def test_training_goes_on_and_the_checkpoint_is_of_when_it_was_asked_for(
    rank: int, tmp_path: Path, corpus: Path
) -> None:
    from unittest import mock

    from megatron_distill.checkpoint import saving
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, describe_student, open_saver
    from tests.training.test_student import train

    gate, write_items = threading.Event(), saving.write_items

    def slow(*arguments: object) -> object:
        assert gate.wait(60)
        return write_items(*arguments)

    run = tmp_path / "run"
    options = ["--async-save", "--tensor-model-parallel-size", 2, "--precision", "bf16", "--optimizer", "adamw"]
    with student(run, corpus, *options, "--decay-semantics", "lr") as trained:
        state = TrainState()
        train(trained, state, 2)
        names = {n: p.clone() for n, p in trained.model.named_parameters()}
        moments = [s["exp_avg"].clone() for s in trained.optimizer.optimizer.state.values()]
        saver = open_saver(trained.plan)
        with mock.patch.object(saving, "write_items", slow):
            saver.save(describe_student(trained, state), trained.model, trained.optimizer)
            train(trained, state, 3)
            saver.poll()
            assert saver.newest is None and not (run / "latest").exists()
            assert checkpoints(run) == [".partial_iter_0000002"]
            gate.set()
            folder = saver.wait()
        assert folder == run / "checkpoints" / "iter_0000002" == saver.newest
        again = build_student(trained.plan, 2, weights=folder, with_optimizer=True)
        for name, parameter in again.model.named_parameters():
            assert torch.equal(parameter, names[name])
        changed = [not torch.equal(p, names[n]) for n, p in trained.model.named_parameters()]
        assert any(changed), "training went on"
        loaded = [s["exp_avg"] for s in again.optimizer.optimizer.state.values()]
        assert all(torch.equal(a, b) for a, b in zip(loaded, moments, strict=True))


@ranks(2)
def test_one_that_fails_in_the_background_is_told_on_every_rank(rank: int, tmp_path: Path, corpus: Path) -> None:
    from unittest import mock

    from megatron_distill.checkpoint import saving
    from megatron_distill.parallel.worlds import FailedTogether
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import describe_student, open_saver, save_student

    def fail(*arguments: object) -> object:
        raise OSError(28, "No space left on device")

    with student(tmp_path / "run", corpus, "--async-save", "--tensor-model-parallel-size", 2) as trained:
        save_student(trained, TrainState(iteration=1))
        saver = open_saver(trained.plan)
        with mock.patch.object(saving, "write_items", fail if rank == 1 else saving.write_items):
            saver.save(describe_student(trained, TrainState(iteration=2)), trained.model, trained.optimizer)
            with pytest.raises(FailedTogether, match="iter_0000002 could not be written .*No space left"):
                saver.wait()
        assert rank or checkpoints(tmp_path / "run") == ["iter_0000001"]
        assert saver.wait() is None, "nothing is under way any more"


@ranks(2)
def test_a_folder_that_ranks_do_not_share_gives_no_checkpoint(rank: int, tmp_path: Path, corpus: Path) -> None:
    """Each rank's files are on its own disk, and all that rank 0 sees is whole."""
    from megatron_distill.parallel.worlds import FailedTogether
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import describe_student, open_saver

    with student(tmp_path / "run", corpus, "--tensor-model-parallel-size", 2) as trained:
        saver = open_saver(trained.plan)
        saver.run = tmp_path / f"node{rank}"
        if rank == 1:
            (saver.run / "checkpoints" / ".partial_iter_0000001").mkdir(parents=True)
        with pytest.raises(FailedTogether, match=r"__1_0.distcp is missing in .* file system that all nodes share"):
            saver.save(describe_student(trained, TrainState(iteration=1)), trained.model, trained.optimizer)
        assert not (saver.run / "latest").exists()
        assert rank or checkpoints(saver.run) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The same run, saved while it waits."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert forked(*[flag for flag in flags(corpus, run) if flag != "--async-save"])[0] == [0]
    return run


def test_the_same_run_comes_of_it(whole: Path, corpus: Path, tmp_path: Path) -> None:
    codes, said = forked(*flags(corpus, tmp_path / "run"))
    assert codes == [0], said
    assert trace(tmp_path / "run") == trace(whole)
    assert checkpoints(tmp_path / "run") == checkpoints(whole) == ["iter_0000009", "iter_0000010"]
    assert said.count("saved ") == 10


@pytest.mark.parametrize("size", [1, 2])
def test_killed_while_it_writes(size: int, whole: Path, corpus: Path, tmp_path: Path) -> None:
    """Every start dies a few changes of a file later; what was promised is there each time."""
    run = tmp_path / "run"
    moments = (24, 40) if size > 1 else (15, 22, 29, 36)
    for moment in moments:
        codes, said = forked(*flags(corpus, run), ranks=size, die_at=moment)
        assert codes[0] == -signal.SIGKILL, said
        promised = [line.split("iter_")[1] for line in said.splitlines() if line.startswith("saved ")]
        found = read_latest(run)
        assert found is not None and found[0].name >= f"iter_{promised[-1]}" if promised else True
    assert forked(*flags(corpus, run), ranks=size)[0] == [0] * size
    if size == 1:
        assert trace(run) == trace(whole)
    assert [row[0] for row in trace(run)] == list(range(1, 11))


def test_asked_to_stop_waits_for_what_is_being_written(whole: Path, corpus: Path, tmp_path: Path) -> None:
    def stop(pids: Pids) -> None:
        os.kill(pids[0], signal.SIGTERM)

    run = tmp_path / "run"
    codes, said = forked(*flags(corpus, run), ranks=2, on_row=(4, stop))
    assert codes == [0, 0], said
    newest = read_latest(run)
    assert newest is not None and newest[1].iteration == trace(run)[-1][0]
    assert not [name for name in checkpoints(run) if name.startswith(".partial")]
    assert forked(*flags(corpus, run), ranks=2)[0] == [0, 0]


def test_a_full_disk_ends_it_with_a_sentence(corpus: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    assert forked(*flags(corpus, run, "--exit-interval", 2))[0] == [0]
    (small_disk / "hog").write_bytes(os.urandom(shutil.disk_usage(small_disk).free - 200_000))
    codes, said = forked(*flags(corpus, run))
    assert codes == [1]
    assert "the checkpoint iter_0000003 could not be written (it needs" in said and "Traceback" not in said
    newest = read_latest(run)
    assert newest is not None and newest[1].iteration == 2


def test_some_are_kept_for_good(corpus: Path, tmp_path: Path) -> None:
    steps = ["--train-iters", 10, "--save-interval", 1, "--keep-checkpoints", 2, "--save-retain-interval", 4]
    assert forked(*MODEL, *SMALL, "--data-path", corpus, "--save", tmp_path / "run", *steps)[0] == [0]
    assert checkpoints(tmp_path / "run") == [f"iter_{i:07d}" for i in (4, 8, 9, 10)]
