"""What a distillation method costs a token, as plain arithmetic: FLOPs of both roles, and bytes between them.

FLOPs are those of matrix products, two for each multiply-add, and twice the forward for the backward. Of a token, with
V padded rows of vocabulary, widths d of the residual stream and w of all attention heads, T the sequence length:

    student   its own forward and backward, `ModelShape.flops_per_token`
    teacher   a third of its own, less the output projection 2 V d_teacher
    vanilla             2 V d_teacher, the teacher's logits: on the student's last stage if hidden states cross the
                        bridge, else on the teacher's last stage
    minilm              2 relations x (3 w_student + w_teacher) (T + 1), on the student's last stage
    attention-scores    (3 w_student + w_teacher) (T + 1) for each of the student's layers
    hidden-states, embedding-table, attention-outputs
                        no product

A relation takes four products over the (T + 1) / 2 positions that a token sees on average: the student's scores, the
teacher's, and the gradients of the student's two operands. Vanilla's gradient is part of the student's backward pass:
one gradient by the logits serves the cross-entropy and the divergence (`losses/distill_logits.py`, weights known before
the forward pass). What implementations add, such as recomputation, is no part of a method's cost.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .error import ConfigError
from .model import ModelShape

Wire = Literal["hidden", "logits", "topk"]

METHODS: dict[str, tuple[str, ...]] = {
    "none": (),
    "vanilla": ("vanilla",),
    "minilm": ("vanilla", "minilm"),
    "homotopic": ("vanilla", "hidden-states", "embedding-table", "attention-scores"),
}
"""The methods of arXiv:2305.14864v2 as lists of losses besides the cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class LossCost:
    """What a loss computes and needs of the teacher, as far as FLOPs, bytes and memory depend on it."""

    on_logits: bool = False
    """It compares predictions: the teacher's logits are computed, by default on the student's last stage, which holds a
    copy of the teacher's output matrix for them."""
    layer_taps: tuple[str, ...] = ()
    """What it compares in every layer that the student has."""
    last_taps: tuple[str, ...] = ()
    """What it compares in one layer, the last if not told otherwise."""
    layer_relations: int = 0
    """Products of all pairs of positions in every layer that the student has."""
    last_relations: int = 0
    """The same in the one layer of `last_taps`."""
    on_table: bool = False
    """It compares embedding tables: the student's first stage holds a copy of the teacher's."""
    same: tuple[str, ...] = ()
    """Sizes of a `ModelShape` that both models must share."""


COSTS: dict[str, LossCost] = {
    "vanilla": LossCost(on_logits=True, same=("padded_vocab_size",)),
    "minilm": LossCost(last_taps=("queries", "keys", "values"), last_relations=2),
    "hidden-states": LossCost(layer_taps=("hidden",), same=("hidden_size",)),
    "embedding-table": LossCost(on_table=True, same=("padded_vocab_size", "hidden_size")),
    "attention-scores": LossCost(layer_taps=("queries", "keys"), layer_relations=1, same=("num_attention_heads",)),
    "attention-outputs": LossCost(layer_taps=("attention_output",), same=("num_attention_heads",)),
}
"""By the name of a loss. A new loss needs an entry: plans and the FLOPs of a run ask for it, and a run whose
loss has none is refused."""

_DIVERGENCES = {"kl": "forward-kl", "jsd": "jsd", "tvd": "tvd", "symmetric": "symmetric"} | {
    name: name for name in ("forward-kl", "reverse-kl", "skew-kl", "skew-reverse-kl")
}
"""What users call a loss, though it is a divergence of the loss vanilla."""


class ByStage(NamedTuple):
    """An amount that a model's layers share evenly, and one that only the stage with the last layer has."""

    layers: float
    last_stage: float

    @property
    def total(self) -> float:
        """Of all stages."""
        return self.layers + self.last_stage

    def largest(self, num_stages: int) -> float:
        """Of the stage that has most of it."""
        return self.layers / num_stages + self.last_stage


def method_flops_per_token(
    student: ModelShape,
    student_layers: int,
    teacher: ModelShape | None,
    teacher_layers: int,
    seq_length: int,
    losses: Sequence[str],
    *,
    wire: Wire = "hidden",
) -> tuple[float, float]:
    """FLOPs that a token costs (the student's ranks, the teacher's ranks) in one step; see `method_flops_by_stage`."""
    ours, theirs = method_flops_by_stage(
        student, student_layers, teacher, teacher_layers, seq_length, losses, wire=wire
    )
    return ours.total, theirs.total


def method_flops_by_stage(
    student: ModelShape,
    student_layers: int,
    teacher: ModelShape | None,
    teacher_layers: int,
    seq_length: int,
    losses: Sequence[str],
    *,
    wire: Wire = "hidden",
) -> tuple[ByStage, ByStage]:
    """FLOPs that a token costs (the student's ranks, the teacher's ranks) in one step, by pipeline stage.

    Args:
        student, teacher: the shapes as they were pretrained; no teacher costs nothing.
        student_layers, teacher_layers: the layers that they run through.
        losses: names as in `--loss`, options after a colon ignored; none: no teacher runs.
        wire: what of the teacher's last layer crosses the bridge.

    Raises:
        ConfigError: a loss that is not known, or losses without a teacher.
    """
    names = loss_names(losses)
    layers, head = _forward(student, student_layers, seq_length)
    if not names:
        return ByStage(3 * layers, 3 * head), ByStage(0.0, 0.0)
    if teacher is None:
        raise ConfigError(f"the losses {', '.join(sorted(names))} need a teacher")
    teacher_trunk, teacher_head = _forward(teacher, teacher_layers, seq_length)
    pairs = (3 * _attention_width(student) + _attention_width(teacher)) * (seq_length + 1.0)
    chosen = [COSTS[name] for name in names]
    logits = teacher_head if any(cost.on_logits for cost in chosen) else 0.0
    scores = student_layers * pairs * sum(cost.layer_relations for cost in chosen)
    relations = pairs * sum(cost.last_relations for cost in chosen)
    here, there = (logits, 0.0) if wire == "hidden" else (0.0, logits)
    return ByStage(3 * layers + scores, 3 * head + relations + here), ByStage(teacher_trunk, there)


def bridge_bytes_per_token(
    teacher: ModelShape,
    student_layers: int,
    losses: Sequence[str],
    *,
    wire: Wire = "hidden",
    topk: int = 64,
    element_bytes: int = 2,
) -> ByStage:
    """Bytes that the teacher sends for a token, by the student's stage that they are for.

    For vanilla the final hidden state, the logits, or `topk` pairs of a value and an index, 4 bytes each, and the mass
    of the rest; for the other losses their taps of each of the student's layers or of the last. What two losses need
    is sent once; an embedding table is sent once a run and does not count.
    """
    names = loss_names(losses)
    hidden, vocab = teacher.hidden_size, teacher.padded_vocab_size
    final = {"hidden": hidden * element_bytes, "logits": vocab * element_bytes, "topk": 8 * topk + 4}[wire]
    chosen = [COSTS[name] for name in names]
    every = {tap for cost in chosen for tap in cost.layer_taps}
    last = {tap for cost in chosen for tap in cost.last_taps} - every
    size = {
        "hidden": hidden,
        "queries": _attention_width(teacher),
        "keys": teacher.num_query_groups * teacher.head_dim,
        "values": teacher.num_query_groups * teacher.head_dim,
        "attention_output": _attention_width(teacher),
    }
    return ByStage(
        float(student_layers * element_bytes * sum(size[tap] for tap in every)),
        float(
            element_bytes * sum(size[tap] for tap in last) + (final if any(cost.on_logits for cost in chosen) else 0)
        ),
    )


def loss_costs(losses: Sequence[str]) -> tuple[LossCost, ...]:
    """What each of the losses costs, each once; see `loss_names`."""
    return tuple(COSTS[name] for name in sorted(loss_names(losses)))


def loss_names(losses: Sequence[str]) -> frozenset[str]:
    """The losses without their options.

    Raises:
        ConfigError: one of them has no known cost.
    """
    names = frozenset(given.split(":")[0] for given in losses)
    if unknown := sorted(names - COSTS.keys()):
        if divergence := _DIVERGENCES.get(unknown[0]):
            raise ConfigError(
                f"no loss is called {unknown[0]}: it is a divergence; give vanilla:divergence={divergence}"
            )
        near = difflib.get_close_matches(unknown[0], COSTS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(COSTS))}"
        raise ConfigError(f"no loss is called {unknown[0]}, or none that has a known cost; {hint}")
    return names


def _forward(shape: ModelShape, num_layers: int, seq_length: int) -> tuple[float, float]:
    """FLOPs of a forward pass: the layers, and the output projection."""
    head = 2.0 * shape.padded_vocab_size * shape.hidden_size
    return shape.flops_per_token(seq_length, num_layers) / 3 - head, head


def _attention_width(shape: ModelShape) -> int:
    return shape.num_attention_heads * shape.head_dim
