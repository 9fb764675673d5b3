"""MiniLM's relations of the last layer, adapted to a causal decoder (arXiv:2305.14864v2, Eq. 4; MiniLMv2,
arXiv:2012.15828, section 3.1).

    R = softmax(X1 X2^T / sqrt(d_r) + causal mask)        Q-K: X1, X2 = Q, K;  V-V: X1 = X2 = V
    loss of a token = mean over A_r relation heads of KL(R_teacher[row] || R_student[row])

The features of all heads are one vector that is cut into A_r relation heads of size d_r; A_r need not be the number of
attention heads, nor need teacher and student be equally wide. Heads are split over tensor-parallel ranks: each rank
does its own, and only the sum crosses the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .causal_pairs import CausalPairs, causal_pair_sum
from .collectives import size_of, total_over


def relation_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    relation_heads: int,
    group: dist.ProcessGroup | None,
) -> Tensor:
    """Sum over counted tokens of the mean over relation heads of KL(teacher's row || student's row).

    Args:
        student, teacher: X1 and X2, each [seq, batch, heads of this rank, head dim] of its model.
        mask: 1 for the rows that count, [seq, batch].
        relation_heads: A_r, of all ranks together.
        group: the ranks over which heads are split; None: not split. One collective of one number.

    Raises:
        ConfigError: the heads cannot be cut so.
    """
    ranks = size_of(group)
    for who, (x, _) in (("student", student), ("teacher", teacher)):
        width = x.shape[2] * x.shape[3] * ranks
        if relation_heads % ranks or width % relation_heads:
            raise ConfigError(
                f"{relation_heads} relation heads do not fit the {who}: they must divide its width {width} and be a "
                f"multiple of the tensor-parallel size {ranks}"
            )
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in student)
    part = causal_pair_sum(student, CausalPairs(teacher, mask, relation_heads // ranks, _row_divergence, trains))
    return total_over(group, part) / relation_heads


def _row_divergence(
    student: Tensor, teacher: Tensor, scales: tuple[float, float], future: Tensor
) -> tuple[Tensor, Tensor, float]:
    """KL(softmax(teacher) || softmax(student)) of each row over its past."""
    log_q, log_p = (_log_softmax(x, scale, future) for x, scale in zip((student, teacher), scales, strict=True))
    p = log_p.exp()
    log_p.sub_(log_q)
    log_p[..., -len(future) :].masked_fill_(future, 0)  # of -inf - -inf
    return log_p.mul_(p).sum(-1), log_q.exp_().sub_(p), scales[0]


def _log_softmax(products: Tensor, scale: float, future: Tensor) -> Tensor:
    scores = products.to(torch.promote_types(products.dtype, torch.float32)).mul_(scale)
    scores[..., -len(future) :].masked_fill_(future, -torch.inf)
    return scores.log_softmax(-1)


@loss("minilm")
@dataclass(frozen=True)
class MiniLM:
    """Q-K and V-V relations of one layer."""

    relation_heads: int = 0
    """A_r; 0: as many as the student has attention heads."""
    layer: int = -1
    """Which layer of the student, counted in those it holds; -1: its last."""

    components = ("qk", "vv")

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the relation heads do not divide a width."""
        heads = self.relation_heads or student.num_attention_heads
        if heads < 0:
            raise ConfigError(f"--loss minilm: relation_heads={heads} must be at least 0")
        for who, model in (("student", student), ("teacher", teacher)):
            width = model.num_attention_heads * model.head_dim
            if width % heads:
                raise ConfigError(
                    f"--loss minilm: {heads} relation heads do not divide the width {width} of the {who}'s attention; "
                    "give another relation_heads"
                )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """Queries, keys and values of the layer."""
        if not -len(layers) <= self.layer < len(layers):
            raise ConfigError(f"--loss minilm: the student has {len(layers)} layers, so none is its layer {self.layer}")
        return tuple(Tap(kind, layers[self.layer]) for kind in ("queries", "keys", "values"))

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Components `qk` and `vv`. Raises ConfigError where relation heads do not divide the width."""
        (layer,) = inputs.layers
        taps = [Tap(kind, layer) for kind in ("queries", "keys", "values")]
        (q, k, v), (tq, tk, tv) = ([given[tap] for tap in taps] for given in (inputs.student, inputs.teacher))
        heads = self.relation_heads or q.shape[2] * size_of(inputs.group)
        compare = partial(relation_loss, mask=inputs.mask, relation_heads=heads, group=inputs.group)
        return {"qk": compare((q, k), (tq, tk)), "vv": compare((v, v), (tv, tv))}
