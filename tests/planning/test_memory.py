"""The memory of a plan: the parts that are exact, and activations against what autograd keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron_distill.config.distillation_cost import COSTS, LossCost
from megatron_distill.config.model import ModelConfig, ModelShape
from megatron_distill.config.parameter_bytes import parameters_of_stage
from megatron_distill.config.run import Layout
from megatron_distill.planning.job import Job, make_job
from megatron_distill.planning.memory import (
    layer_activations,
    student_memory,
    teacher_memory,
)
from megatron_distill.planning.request import PlanConfig
from tests.support.public_models import public_shape
from tests.support.ranks import launch
from tests.support.worlds import student_world

ONE = Layout(tensor=1, pipeline=1, data=1, num_microbatches=8)
SEQ, BATCH = 64, 2
HERE = {"colocated": False}


def job(**changes: object) -> Job:
    flags = {"teacher": "palm-1.1b-paper", "layers": 12, "gpus": 8, "global_batch_size": 8} | changes
    return make_job(PlanConfig(**flags))  # type: ignore[arg-type]


def shape_of(name: str) -> ModelShape:
    return ModelConfig(model=name).shape() if name.startswith("palm-") else public_shape(name)


def check_activations(rank: int, name: str) -> None:
    from megatron_distill.models.build import BuildOptions, build_decoder

    shape = shape_of(name)
    with student_world():
        options = BuildOptions(dtype=torch.float32, attention_backend="sdpa")
        model = build_decoder(shape, tuple(range(shape.num_layers)), ONE, options)
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        h = torch.randn(SEQ, BATCH, shape.hidden_size, requires_grad=True)
        positions = None if shape.block and not shape.block.rotary_dim else model.rotary_pos_emb(SEQ)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out, _ = model.decoder.layers[1](h, rotary_pos_emb=positions)
        for parameter in model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        estimate = 4 * SEQ * BATCH * layer_activations(shape, tensor=1)
        assert out.requires_grad
        assert 0.8 < sum(kept.values()) / estimate < 1.2, sum(kept.values()) / estimate


@pytest.mark.parametrize("name", ["palm-tiny", "palm-tiny-paper", "llama", "qwen3", "gpt2", "opt"])
def test_activations_are_about_what_autograd_keeps(name: str, tmp_path: Path) -> None:
    launch(check_activations, 1, 60.0, tmp_path, {"name": name})


def test_without_pipeline_a_rank_holds_everything_once() -> None:
    shape = ModelConfig(model="palm-1.1b-paper").shape()
    assert parameters_of_stage(shape, 24, ONE) == 1_110_347_776
    halves = Layout(tensor=2, pipeline=2, data=1, num_microbatches=8)
    table = 50304 * 2048
    layers = 1_110_347_776 - table - 2 * 2048
    assert parameters_of_stage(shape, 24, halves) == (layers / 2 + table) / 2


@pytest.mark.parametrize(("optimizer", "bytes_each"), [("lion", 8), ("adamw", 12)])
@pytest.mark.parametrize("replicas", [1, 4])
def test_weights_gradients_and_a_share_of_the_optimizer(optimizer: str, bytes_each: int, replicas: int) -> None:
    layout = Layout(tensor=1, pipeline=1, data=replicas, num_microbatches=2)
    found = student_memory(job(optimizer=optimizer), layout, 1, colocated=False)
    size = 606_687_232
    assert found[:3] == (2 * size, 4 * size, bytes_each * size / replicas)


def test_the_seed_phase_holds_all_layers_and_trains_those_that_stay() -> None:
    found = student_memory(job(pruning_seed_tokens="1B"), ONE, 1, colocated=False)
    short = student_memory(job(), ONE, 1, colocated=False)
    assert found.weights == 2 * 1_110_347_776 and found.gradients == 4 * 606_687_232
    assert found.activations == 2 * short.activations


def test_a_teacher_elsewhere_leaves_its_output_matrix() -> None:
    table = 2 * 50304 * 2048
    assert student_memory(job(), ONE, 1, colocated=False).teacher == table
    assert student_memory(job(bridge_wire="topk"), ONE, 1, colocated=False).teacher == 0
    assert student_memory(job(method="homotopic"), ONE, 1, colocated=False).teacher == table
    assert student_memory(job(), ONE, 1, colocated=True).teacher > 2 * 1_110_347_776


def test_recomputation_keeps_the_inputs_of_layers() -> None:
    full, none = (
        student_memory(job(recompute_granularity=how), ONE, 1, colocated=False).activations for how in ("full", "none")
    )
    each = 2 * 2048 * 19 * 2048
    assert none == 12 * each
    assert full == 12 * 2 * 2048 * 2048 + each


def test_the_first_stage_keeps_as_many_micro_batches_as_there_are_stages() -> None:
    alone = student_memory(job(method="none"), ONE, 1, colocated=False)
    staged = student_memory(job(method="none"), Layout(tensor=1, pipeline=4, data=1, num_microbatches=8), 1, **HERE)
    few = student_memory(job(method="none"), Layout(tensor=1, pipeline=2, data=1, num_microbatches=1), 1, **HERE)
    assert staged.activations == alone.activations == 2 * few.activations
    two = student_memory(job(), Layout(tensor=1, pipeline=4, data=1, num_microbatches=2), 1, colocated=True)
    assert two.loss == 0 and two.activations == alone.activations / 2, "of the first stage"


def test_what_crosses_the_bridge_is_kept_for_four_micro_batches_or_one() -> None:
    sent = 2048 * (1 + 12 * 3) * 2 * 2048
    assert student_memory(job(method="homotopic"), ONE, 1, colocated=False).bridge == 4 * sent
    assert student_memory(job(method="homotopic"), ONE, 1, colocated=True).bridge == sent


def test_a_teacher_keeps_no_gradients_and_sends_ahead() -> None:
    found = teacher_memory(job(), ONE, 2)
    assert (found.weights, found.gradients, found.optimizer) == (2 * 1_110_347_776, 0, 0)
    assert found.bridge == 4 * (2 * 2048) * 4096
    assert teacher_memory(job(bridge_wire="logits"), ONE, 2).loss == 2 * 2048 * 50304 * 2


def test_a_new_loss_on_logits_needs_the_memory_of_vanilla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COSTS, "total-variation", LossCost(on_logits=True))
    for wire in ("hidden", "logits", "topk"):
        new, vanilla = (job(loss=(name,), bridge_wire=wire) for name in ("total-variation", "vanilla"))
        assert student_memory(new, ONE, 1, **HERE) == student_memory(vanilla, ONE, 1, **HERE)
        assert teacher_memory(new, ONE, 1) == teacher_memory(vanilla, ONE, 1)
