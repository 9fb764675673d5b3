"""Pre-softmax attention scores of every kept layer against the teacher's (arXiv:2305.14864v2; TinyBERT,
arXiv:1909.10351, Eq. 7).

    S = Q K^T / sqrt(d_h)        loss = mean over batch, heads and causal entries of (S_student - S_teacher)^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .base import LossInputs, LossTerm, Tap, loss
from .causal_pairs import CausalPairs, causal_pair_sum
from .collectives import size_of, total_over


def attention_score_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    group: dist.ProcessGroup | None,
) -> LossTerm:
    """Sum over heads and causal entries of counted queries of squared differences, and how many entries there are.

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
    pasts = torch.arange(1, len(mask) + 1, device=mask.device).unsqueeze(1)
    return LossTerm(total_over(group, part), (mask * pasts).sum() * heads * size_of(group))


def _squared_difference(student: Tensor, teacher: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
    difference = student.sub_(teacher).masked_fill_(future, 0)
    return torch.mul(difference, difference, out=teacher).sum(-1), difference.mul_(2)


@loss("attention-scores")
@dataclass(frozen=True)
class AttentionScores:
    """The scores of every layer that the student holds."""

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """Queries and keys of every layer."""
        return tuple(Tap(kind, layer) for layer in layers for kind in ("queries", "keys"))

    def __call__(self, inputs: LossInputs) -> dict[str, LossTerm]:
        """A component for each layer, such as `attention.3`."""
        pairs = {layer: (Tap("queries", layer), Tap("keys", layer)) for layer in inputs.layers}
        return {
            f"attention.{layer}": attention_score_loss(
                (inputs.student[q], inputs.student[k]),
                (inputs.teacher[q], inputs.teacher[k]),
                inputs.mask,
                group=inputs.group,
            )
            for layer, (q, k) in pairs.items()
        }
