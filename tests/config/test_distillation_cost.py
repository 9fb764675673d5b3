"""What a method costs, against the products that the losses really do and a count that names them all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_distill.config.distillation_cost import (
    COSTS,
    METHODS,
    ByStage,
    LossCost,
    Wire,
    bridge_bytes_per_token,
    method_flops_by_stage,
    method_flops_per_token,
)
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig, ModelShape
from megatron_distill.losses import causal_pairs
from megatron_distill.losses.attention_scores import attention_score_loss
from megatron_distill.losses.base import build_loss, loss_names
from megatron_distill.losses.distill_logits import distill_logits
from megatron_distill.losses.divergences import DIVERGENCES, divergence
from megatron_distill.losses.relations import relation_loss
from megatron_distill.losses.teacher_signal import HiddenTeacher
from tests.support.public_models import public_shape

SEQ, HEADS = 7, 4
STUDENT = ModelConfig(model="palm-tiny", num_layers=6, hidden_size=32, num_attention_heads=HEADS, vocab_size=128)
TEACHER = ModelConfig(model="palm-tiny", num_layers=9, hidden_size=48, num_attention_heads=HEADS, vocab_size=128)


class Products(TorchDispatchMode):
    """Counts the FLOPs of matrix products."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0].rstrip("_")
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self.flops += 2 * left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


def costs(losses: tuple[str, ...], wire: Wire = "hidden", layers: int = 3) -> tuple[float, float]:
    return method_flops_per_token(STUDENT.shape(), layers, TEACHER.shape(), 9, SEQ, losses, wire=wire)


def features(shape: ModelShape) -> tuple[Tensor, Tensor]:
    """Queries and keys of one sequence."""
    size = (SEQ, 1, shape.num_attention_heads, shape.head_dim)
    return torch.randn(size, requires_grad=True), torch.randn(size, requires_grad=True)


def test_without_a_teacher_it_is_training() -> None:
    shape = STUDENT.shape()
    assert method_flops_per_token(shape, 3, None, 0, SEQ, ()) == (shape.flops_per_token(SEQ, 3), 0)


def test_every_product_of_vanilla() -> None:
    student, teacher, tokens = STUDENT.shape(), TEACHER.shape(), SEQ
    hidden, weight = torch.randn(tokens, 32, requires_grad=True), torch.randn(128, 32, requires_grad=True)
    known = HiddenTeacher(torch.randn(tokens, 48), torch.randn(128, 48))
    labels, mask = torch.zeros(tokens, dtype=torch.long), torch.ones(tokens)
    with Products() as counted:
        which = divergence("forward-kl")
        distill_logits(hidden, weight, known, labels, mask, which=which, group=None, weights=(1.0, 1.0))
    plain_head = 6 * 128 * 32
    assert counted.flops == tokens * (costs(("vanilla",))[0] - student.flops_per_token(SEQ, 3) + plain_head)
    forward = teacher.flops_per_token(SEQ) / 3
    assert costs(("vanilla",))[1] == pytest.approx(forward - 2 * 128 * 48)


@pytest.mark.parametrize("loss", ["attention-scores", "minilm"])
def test_every_product_of_relations(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of one query nothing above the diagonal is computed, and the count is exact."""
    monkeypatch.setattr(causal_pairs, "QUERY_BLOCK", 1)
    ours, theirs, mask = features(STUDENT.shape()), features(TEACHER.shape()), torch.ones(SEQ, 1)
    with Products() as counted:
        if loss == "minilm":
            relation_loss(ours, theirs, mask, relation_heads=HEADS, group=None)
        else:
            attention_score_loss(ours, theirs, mask, group=None)
    times = 2 if loss == "minilm" else 3  # Q-K and V-V; every layer that the student has
    added = costs((loss,))[0] - STUDENT.shape().flops_per_token(SEQ, 3)
    assert added * SEQ == pytest.approx(times * counted.flops, rel=1e-12)


def test_stages() -> None:
    """Relations are the last stage's, scores every layer's, and both add up."""
    shapes = (STUDENT.shape(), 3, TEACHER.shape(), 9, SEQ)
    plain, _ = method_flops_by_stage(STUDENT.shape(), 3, None, 0, SEQ, ())
    relations, _ = method_flops_by_stage(*shapes, ("minilm",))
    scores, trunk = method_flops_by_stage(*shapes, ("attention-scores",))
    assert relations.layers == plain.layers and relations.last_stage > plain.last_stage
    assert scores.layers > plain.layers and scores.last_stage == plain.last_stage
    assert plain.last_stage == 6 * 128 * 32 and trunk.last_stage == 0
    assert ByStage(12.0, 5.0).largest(3) == 9 and ByStage(12.0, 5.0).total == 17


@pytest.mark.parametrize("wire", ["logits", "topk"])
def test_the_wire_moves_the_teachers_output_projection(wire: Wire) -> None:
    (student, teacher), (other_student, other_teacher) = costs(("vanilla",)), costs(("vanilla",), wire)
    head = 2 * 128 * 48
    assert (student - other_student, other_teacher - teacher) == (head, pytest.approx(head))


def test_differences_alone_cost_no_products() -> None:
    assert costs(("hidden-states", "embedding-table", "attention-outputs"))[0] == STUDENT.shape().flops_per_token(
        SEQ, 3
    )


def test_the_papers_methods_in_order() -> None:
    """Teacher-free 3.940e9; teacher 2.215e9 and its logits 0.206e9; 2 relations of 16.8e6, or 12 layers of them."""
    shape = ModelConfig(model="palm-1.1b-paper").shape()
    totals = [sum(method_flops_per_token(shape, 12, shape, 24, 2048, losses)) for losses in METHODS.values()]
    assert [round(total / totals[0], 3) for total in totals] == [1.0, 1.614, 1.623, 1.665]


def test_bytes_on_the_bridge() -> None:
    shape = ModelConfig(model="palm-1.1b-paper").shape()
    d = shape.hidden_size

    def sent(losses: tuple[str, ...], wire: Wire = "hidden") -> float:
        return bridge_bytes_per_token(shape, 12, losses, wire=wire, topk=16).total

    assert [sent(("vanilla",), wire) for wire in ("hidden", "logits", "topk")] == [2 * d, 2 * 50304, 16 * 8 + 4]
    assert sent(METHODS["minilm"]) == 2 * d + 3 * 2 * d
    assert sent(METHODS["homotopic"]) == 2 * d + 12 * (2 * d + 2 * 2 * d)
    # the last layer's queries and keys are there already
    assert sent(("minilm", "attention-scores")) == 12 * 2 * 2 * d + 2 * d
    assert bridge_bytes_per_token(shape, 12, ("vanilla",), element_bytes=4).total == 4 * d
    assert bridge_bytes_per_token(shape, 12, METHODS["homotopic"]).largest(3) == 2 * d + 4 * 3 * 2 * d


def test_every_loss_there_is_has_a_cost() -> None:
    shape = STUDENT.shape()
    for name in loss_names():
        assert method_flops_per_token(shape, 3, shape, 6, SEQ, (name,))[1] > 0
    assert costs(("vanilla:temperature=2",)) == costs(("vanilla",))


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="no loss is called vanila, .*; did you mean vanilla"):
        costs(("vanila",))
    with pytest.raises(ConfigError, match="minilm need a teacher"):
        method_flops_per_token(STUDENT.shape(), 3, None, 0, SEQ, ("minilm",))


def test_a_family_with_grouped_keys() -> None:
    shape = public_shape("llama")
    sent = bridge_bytes_per_token(shape, 4, ("minilm",)).total
    assert sent == 2 * (4 + 2 + 2) * 16  # 4 query heads and 2 of keys and of values, 16 wide


@pytest.mark.parametrize("name", loss_names())
def test_a_cost_names_what_its_loss_asks_for(name: str) -> None:
    """The plan's description against the loss itself: what it taps in each layer, in one, and outside of layers."""
    layers, cost = (1, 3, 5), COSTS[name]
    taps = build_loss(name).taps(layers)
    by_layer = [{tap.kind for tap in taps if tap.layer == layer} for layer in layers]
    assert set(cost.layer_taps) == set.intersection(*by_layer)
    assert set(cost.last_taps) == by_layer[-1] - set(cost.layer_taps)
    assert {tap.kind for tap in taps if tap.layer is None} == (
        {"final_hidden", "output_weight"} if cost.on_logits else {"embedding"} if cost.on_table else set()
    )


def test_a_divergence_is_not_taken_for_a_loss() -> None:
    for name in DIVERGENCES:
        with pytest.raises(ConfigError, match=f"vanilla:divergence={name}"):
            costs((name,))


def test_two_losses_on_logits_cost_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing asks for a loss by its name: a new one with the same description costs the same everywhere."""
    monkeypatch.setitem(COSTS, "total-variation", LossCost(on_logits=True, same=("padded_vocab_size",)))
    wires: tuple[Wire, ...] = ("hidden", "logits", "topk")
    for wire in wires:
        assert costs(("total-variation",), wire) == costs(("vanilla",), wire)
        sent = [bridge_bytes_per_token(TEACHER.shape(), 3, (n,), wire=wire) for n in ("total-variation", "vanilla")]
        assert sent[0] == sent[1]
