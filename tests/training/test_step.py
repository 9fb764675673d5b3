"""One optimizer step: what it sums, over whom, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.support.cluster import forked
from tests.support.ranks import launch, ranks
from tests.support.runs import MODEL, SMALL, result, rows, start
from tests.support.worlds import student


def gradients(rank: int, tmp_path: Path, corpus: Path, name: str, flags: list[object]) -> None:
    """Write the gradients of the first global batch."""
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import run_microbatches

    with student(tmp_path / "run", corpus, *flags) as trained:
        trained.ddp.zero_grad_buffer()
        batches = Feed(trained.plan).training_batches(0)
        run_microbatches(trained, batches, trained.plan.layout.num_microbatches, forward_only=False)
        if trained.plan.layout.data == 1:
            found = {n: p.main_grad.clone() for n, p in trained.model.named_parameters()}
        else:  # each data-parallel rank holds the reduced values of its own part of the flat buffer
            group = trained.optimizer.data_parallel_group
            found = {}
            (buffer,) = trained.ddp.buffers
            flat = buffer.grad_data.clone()
            part = flat.numel() // group.size()
            parts = list(torch.empty_like(flat).split(part))
            torch.distributed.all_gather(parts, flat[rank * part : (rank + 1) * part].clone(), group=group)
            whole = torch.cat(parts)
            for n, p in trained.model.named_parameters():
                first, last, _ = buffer.param_index_map[p]
                found[n] = whole[first:last].view(p.shape)
        if rank == 0:
            torch.save(found, tmp_path / f"{name}.pt")
        batches.close()


WAYS = {
    "one micro-batch": (["--micro-batch-size", 4], 1),
    "four micro-batches": (["--micro-batch-size", 1], 1),
    "two data-parallel ranks": (["--micro-batch-size", 1], 2),
    "recomputed": (["--micro-batch-size", 4, "--recompute-granularity", "full"], 1),
}


@pytest.fixture(scope="module")
def one_micro_batch(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, torch.Tensor]:
    return measure("one micro-batch", tmp_path_factory.mktemp("one"), corpus)


def measure(way: str, folder: Path, corpus: Path) -> dict[str, torch.Tensor]:
    flags, size = WAYS[way]
    launch(gradients, size, 90.0, folder, {"corpus": corpus, "name": way, "flags": flags})
    return torch.load(folder / f"{way}.pt")


@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_gradients_are_those_of_the_global_batch(
    way: str, tmp_path: Path, corpus: Path, one_micro_batch: dict[str, torch.Tensor]
) -> None:
    found = measure(way, tmp_path, corpus)
    assert found.keys() == one_micro_batch.keys()
    for name, wanted in one_micro_batch.items():
        if way == "recomputed":
            assert torch.equal(found[name], wanted), name
        assert (found[name] - wanted).norm() <= 1e-5 * wanted.norm(), name


@ranks(1)
def test_a_step_reports_the_loss_before_it_and_clips_to_the_limit(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import train_step

    with student(tmp_path / "run", corpus, "--clip-grad", 0.01, "--optimizer", "lion") as trained:
        feed = Feed(trained.plan)
        batch = feed.train.batch(range(4))
        with torch.no_grad():
            logits = trained.model(batch.tokens, batch.position_ids, None)
            wanted = F.cross_entropy(logits.flatten(0, 1).float(), batch.labels.flatten())
        batches = feed.training_batches(0)
        done = train_step(trained, batches, 1e-3, should_stop=False)
        batches.close()
        assert done.loss == pytest.approx(float(wanted), rel=1e-5)
        assert done.num_tokens == 4 * 32
        assert not done.skipped
        clipped = torch.cat([p.main_grad.flatten() for p in trained.model.parameters()]).norm()
        assert done.grad_norm > 0.01
        assert float(clipped) == pytest.approx(0.01, rel=1e-3)


@ranks(1)
def test_a_gradient_that_is_not_finite_changes_nothing(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import train_step

    with student(tmp_path / "run", corpus) as trained:
        with torch.no_grad():
            next(iter(trained.model.parameters()))[3] = float("nan")
        before = [p.clone() for p in trained.model.parameters()]
        momenta = [s["exp_avg"].clone() for s in trained.optimizer.optimizer.state.values()]
        batches = Feed(trained.plan).training_batches(0)
        done = train_step(trained, batches, 1e-3, should_stop=True)
        batches.close()
        assert done.skipped
        assert done.stop
        for p, old in zip(trained.model.parameters(), before, strict=True):
            assert torch.equal(p.nan_to_num(), old.nan_to_num())
        for state, old in zip(trained.optimizer.optimizer.state.values(), momenta, strict=True):
            assert torch.equal(state["exp_avg"], old)


def test_skipped_steps_are_counted_and_too_many_stop_the_run(tmp_path: Path, corpus: Path) -> None:
    run = tmp_path / "run"
    flags = [*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--train-iters", 40]
    done = start(*flags, "--lr", 1e20, "--lr-warmup-iters", 0, "--max-nan-steps", 3, check=False)
    assert done.returncode == 3
    assert "not finite for 3 steps in a row up to step" in done.stderr
    assert "Traceback" not in done.stderr
    assert [row["skipped_steps"] for row in rows(run)][-3:] == [1, 2, 3]


@ranks(1)
def test_validation_counts_each_window_once(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.signals import StopSignals
    from megatron_distill.training.validate import validate

    # 5 windows in micro-batches of 3: the second is filled up with what must not count.
    flags = ["--micro-batch-size", 3, "--global-batch-size", 3, "--valid-data-path", corpus, "--seq-length", 1500]
    with student(tmp_path / "run", corpus, *flags, "--eval-iters", 10) as trained:
        feed = Feed(trained.plan)
        assert feed.valid is not None
        assert feed.valid.num_samples == 5
        found = validate(trained, feed, StopSignals())
        losses = []
        for window in range(5):
            batch = feed.valid.batch([window])
            with torch.no_grad():
                losses.append(trained.model(batch.tokens, batch.position_ids, None, labels=batch.labels).double().sum())
        assert found == pytest.approx(float(sum(losses)) / (5 * 1500), rel=1e-6)


@ranks(1)
def test_validation_windows_in_which_nothing_counts_have_no_loss(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.batch import Batch
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.signals import StopSignals
    from megatron_distill.training.validate import validate

    class Masked(Feed):
        def _on_device(self, item: Batch | torch.Tensor) -> Batch:
            batch = super()._on_device(item)
            return replace(batch, loss_mask=torch.zeros_like(batch.loss_mask))

    with student(tmp_path / "run", corpus) as trained:
        assert validate(trained, Masked(trained.plan), StopSignals()) is None
        assert validate(trained, Feed(trained.plan), StopSignals()) is not None


def test_a_learning_rate_of_zero_trains_nothing(tmp_path: Path, corpus: Path) -> None:
    flags = [*MODEL, *SMALL, "--data-path", corpus, "--train-iters", 2, "--lr", 0]
    for optimizer in (["--optimizer", "lion"], ["--optimizer", "adamw", "--decay-semantics", "lr"]):
        run = tmp_path / optimizer[1]
        codes, output = forked(*flags, *optimizer, "--save", run)
        assert codes == [0], output
        first, last = (row["loss"] for row in rows(run, "valid"))
        assert first == last


def test_a_run_tells_all_it_did(base_run: Path) -> None:
    steps = rows(base_run)
    assert [row["iteration"] for row in steps] == list(range(1, 31))
    assert {b["consumed_tokens"] - a["consumed_tokens"] for a, b in pairwise(steps)} == {4 * 32}
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    assert max(row["lr"] for row in steps) == 3e-3
    assert steps[-1]["lr"] == pytest.approx(3e-4)
    finished = result(base_run)
    assert finished["tokens"] == 30 * 4 * 32
    assert finished["perplexity"] == rows(base_run, "valid")[-1]["perplexity"]
    assert sorted(p.name for p in (base_run / "tensorboard").iterdir())
    assert "--num-layers 6" in (base_run / "flags.txt").read_text().splitlines()
