"""Pre-softmax attention scores of every kept layer against the teacher's (arXiv:2305.14864v2; TinyBERT,
arXiv:1909.10351, Eq. 7).

    S = Q K^T / sqrt(d_h)        loss = mean over batch, heads and causal entries of (S_student - S_teacher)^2

As a sum over tokens: a query's share is the sum over its past and the heads, divided by the heads and by the entries
that a query has on average, (seq + 1) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .causal_pairs import CausalPairs, causal_pair_sum
from .collectives import size_of, total_over


def attention_score_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    group: dist.ProcessGroup | None,
) -> Tensor:
    """Sum over counted queries of their share in the mean over causal entries of squared differences.

    Args:
        student, teacher: queries and keys, each [seq, batch, heads of this rank, head dim].
        mask: 1 for the queries that count, [seq, batch].
        group: the ranks over which heads are split; None: not split. One collective of one number.

    Raises:
        ConfigError: teacher and student differ in heads.
    """
    heads = student[0].shape[2]
    if teacher[0].shape[2] != heads:
        raise ConfigError(
            f"the teacher has {teacher[0].shape[2]} attention heads on a rank and the student {heads}; their scores "
            "can be compared one to one only if they have as many"
        )
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in student)
    part = causal_pair_sum(student, CausalPairs(teacher, mask, heads, _squared_difference, trains))
    return total_over(group, part) / (heads * size_of(group) * (len(mask) + 1) / 2)


def _squared_difference(
    student: Tensor, teacher: Tensor, scales: tuple[float, float], future: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Of scores that were scaled alike; the difference stays in the precision of the products it is made of."""
    difference = student.sub_(teacher) if scales[0] == scales[1] else student.mul_(scales[0]) - teacher * scales[1]
    scale = scales[0] if scales[0] == scales[1] else 1.0
    difference[..., -len(future) :].masked_fill_(future, 0)
    norms = torch.linalg.vector_norm(difference, dim=-1, dtype=torch.promote_types(difference.dtype, torch.float32))
    return norms.square_() * scale**2, difference, 2 * scale * scales[0]


@loss("attention-scores")
@dataclass(frozen=True)
class AttentionScores:
    """The scores of every layer that the student holds."""

    components = ("attention",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the numbers of heads differ."""
        if student.num_attention_heads != teacher.num_attention_heads:
            raise ConfigError(
                f"--loss attention-scores needs as many attention heads in both models: the teacher has "
                f"{teacher.num_attention_heads}, the student {student.num_attention_heads}"
            )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """Queries and keys of every layer."""
        return tuple(Tap(kind, layer) for layer in layers for kind in ("queries", "keys"))

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Component `attention`, the sum over layers."""
        pairs = [(Tap("queries", layer), Tap("keys", layer)) for layer in inputs.layers]
        parts = [
            attention_score_loss(
                (inputs.student[q], inputs.student[k]),
                (inputs.teacher[q], inputs.teacher[k]),
                inputs.mask,
                group=inputs.group,
            )
            for q, k in pairs
        ]
        return {"attention": torch.stack(parts).sum()}
