"""Layers that will leave are frozen; when they have left, nothing of them stays and the others have lost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.cluster import forked
from tests.support.ranks import ranks
from tests.support.runs import MODEL, SMALL, trace
from tests.support.worlds import student

SEED = 4 * 32 * 3
"""Tokens of three steps."""
PRUNING = ["--num-layers", 6, "--pruning-layout", "1,3", "--pruning-seed-tokens", SEED]


def train(trained, state, steps: int):  # type: ignore[no-untyped-def]
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import train_step

    batches = Feed(trained.plan).training_batches(0)
    for _ in range(steps):
        train_step(trained, batches, 1e-3, should_stop=False)
        state.iteration += 1
    batches.close()


@ranks(1)
def test_frozen_layers_take_no_gradient_and_pass_it_on(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.training.state import TrainState

    with student(tmp_path / "run", corpus, *PRUNING) as trained:
        before = {n: p.clone() for n, p in trained.model.named_parameters()}
        train(trained, TrainState(), 3)
        frozen = {n for n in before if n.startswith(("decoder.layers.1.", "decoder.layers.3."))}
        assert len(frozen) == 2 * 5
        for name, parameter in trained.model.named_parameters():
            assert torch.equal(parameter, before[name]) == (name in frozen), name
        names = {id(p): n for n, p in trained.model.named_parameters()}
        (buffer,) = trained.ddp.buffers
        with_state = {names[id(p)] for p in buffer.param_index_map}
        assert with_state == before.keys() - frozen
        states = sum(s["exp_avg"].numel() for s in trained.optimizer.optimizer.state.values())
        assert states == sum(p.numel() for n, p in before.items() if n not in frozen)


@ranks(1)
def test_the_truncated_model_is_a_smaller_one_with_the_same_weights(rank: int, tmp_path: Path, corpus: Path) -> None:
    from megatron_distill.models.build import BuildOptions, build_decoder
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, save_student

    with student(tmp_path / "run", corpus, *PRUNING, "--optimizer", "lion") as big:
        state = TrainState()
        train(big, state, 3)
        weights = {big.model.original_name(n): p.clone() for n, p in big.model.named_parameters()}
        momenta = named_momenta(big)
        folder = save_student(big, state)
        small = build_student(big.plan, 3, weights=folder, with_optimizer=True)
        assert small.layers == (0, 2, 4, 5)
        assert small.frozen == frozenset()
        assert not any(".layers.1." in n or ".layers.3." in n for n in map(small.model.original_name, names(small)))

        assert len(momenta) == len(list(small.model.parameters()))
        for name, momentum in named_momenta(small).items():
            assert torch.equal(momentum, momenta[name]), name
            assert momentum.abs().max() > 0

        options = BuildOptions(dtype=torch.float32, attention_backend="sdpa")
        fresh = build_decoder(big.plan.shape, (0, 2, 4, 5), big.plan.layout, options)
        for name, parameter in fresh.named_parameters():
            parameter.data.copy_(weights[fresh.original_name(name)])
        ids = torch.arange(32)[None]
        assert torch.equal(small.model(ids, ids, None), fresh(ids, ids, None))


def names(trained) -> list[str]:  # type: ignore[no-untyped-def]
    return [n for n, _ in trained.model.named_parameters()]


def named_momenta(trained) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    """`exp_avg` of each trainable parameter under its name with the original layer index, at one data-parallel rank."""
    from megatron_distill.optim.sharded_state import _shards

    name_of = {id(p): trained.model.original_name(n) for n, p in trained.model.named_parameters()}
    return {name_of[id(p)]: state["exp_avg"].clone() for p, _, _, state in _shards(trained.optimizer)}


STAGES = {
    "language model": ["--optimizer", "adamw", "--decay-semantics", "lr"],
    "losses in the layers": [
        "--loss",
        "vanilla",
        "hidden-states",
        "attention-scores",
        "--teacher-placement",
        "separate",
    ],
}


@pytest.mark.parametrize("method", STAGES)
def test_a_stage_whose_layers_are_all_frozen(method: str, tmp_path: Path, corpus: Path) -> None:
    """Three stages, the middle one frozen until its layers are pruned; resumed in the seed phase and after it."""
    common = [*(*MODEL, *SMALL, "--num-layers", 9, "--data-path", corpus), *STAGES[method]]
    taught = "--loss" in common
    if taught:
        base = tmp_path / "base"
        assert forked(*MODEL, *SMALL, "--num-layers", 9, "--data-path", corpus, "--train-iters", 1, "--save", base)[
            0
        ] == [0]
        common += ["--load", base]
    common += ["--train-iters", 6, "--pruning-layout", "3-5", "--pruning-seed-tokens", SEED]
    alone, ranks = ("colocated", 4) if taught else ("", 3)
    placement = ["--teacher-placement", alone] if taught else []
    assert forked(*common, *placement, "--save", tmp_path / "one")[0] == [0]
    for stop in (2, 4, 6):
        layout = ["--pipeline-model-parallel-size", 3, "--exit-interval", stop]
        codes, output = forked(*common, *layout, "--save", tmp_path / "three", ranks=ranks)
        assert codes == [0] * ranks, output
    for a, b in zip(trace(tmp_path / "three"), trace(tmp_path / "one"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
