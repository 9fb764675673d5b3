"""Losses on causal score matrices X1 X2^T / sqrt(d_r), a few heads and a block of queries at a time.

The gradients are computed in the forward pass, where the scores are at hand: two products for the scores and two for
the gradients, as in the plain computation, less the half above the diagonal that is never made. What is kept is two
tensors of the size of X1 and X2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

QUERY_BLOCK = 256
BLOCK_BYTES = 2**22

Compare = Callable[[Tensor, Tensor, tuple[float, float], Tensor], tuple[Tensor, Tensor, float]]
"""From the products X1 X2^T of student and teacher [heads, queries, keys], which it may overwrite, 1 / sqrt(d_r) of
both, and which of the last keys are in the future of which query [queries, as many keys], to the loss of each query
[heads, queries], and its gradient by the student's products as a tensor, 0 in the future, and a factor."""


@dataclass(frozen=True)
class CausalPairs:
    """What to compare, and how: see `causal_pair_sum`."""

    teacher: tuple[Tensor, Tensor]
    query_weights: Tensor
    heads: int
    compare: Compare
    wants_gradient: bool


def causal_pair_sum(student: tuple[Tensor, Tensor], pairs: CausalPairs) -> Tensor:
    """Sum over heads of this rank, batch and queries of weight x loss, fp32 with gradients for both of `student`.

    Args:
        student: X1 and X2, each [seq, batch, heads of this rank, head dim].
        pairs: the teacher's X1 and X2 [seq, batch, its heads of this rank, its head dim]; weights of the queries
            [seq, batch]; and into how many heads the features of this rank are to be cut anew.
    """
    return _CausalPairSum.apply(*student, pairs)


class _CausalPairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, pairs: CausalPairs) -> Tensor:
        s1, s2, t1, t2 = (_by_head(x, pairs.heads) for x in (x1, x2, *pairs.teacher))
        weights = pairs.query_weights.t().repeat_interleave(pairs.heads, dim=0)
        dtype = torch.promote_types(x1.dtype, torch.float32)
        total = torch.zeros((), dtype=dtype, device=x1.device)
        gradients = [torch.zeros_like(x, dtype=dtype) for x in ((s1, s2) if pairs.wants_gradient else ())]
        scales = 1 / math.sqrt(s1.shape[-1]), 1 / math.sqrt(t1.shape[-1])
        for heads, queries, future in _blocks(s1):
            keys = slice(0, queries.stop)
            own, other = (torch.bmm(x[heads, queries], y[heads, keys].transpose(1, 2)) for x, y in ((s1, s2), (t1, t2)))
            loss, gradient, factor = pairs.compare(own, other, scales, future)
            weight = weights[heads, queries].to(dtype)
            total += (loss * weight).sum()
            if not pairs.wants_gradient:
                continue
            # Weights go to the rows of the narrow tensors: the scores are the wide ones.
            low, by_row = gradient.to(s1.dtype), (weight * factor).unsqueeze(-1)
            gradients[0][heads, queries].add_(torch.bmm(low, s2[heads, keys]) * by_row)
            weighted = (s1[heads, queries] * by_row).to(s1.dtype)
            _accumulate(gradients[1][heads, keys], low.transpose(1, 2), weighted)
        ctx.save_for_backward(*(_as_before(g, x) for g, x in zip(gradients, (x1, x2), strict=False)))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        d1, d2 = ctx.saved_tensors
        return d1 * grads[0].to(d1.dtype), d2 * grads[0].to(d2.dtype), None


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[seq, batch, any heads, their dim] to [batch * heads, seq, head dim]; heads are contiguous features."""
    seq, batch = x.shape[:2]
    return x.detach().reshape(seq, batch * heads, -1).transpose(0, 1).contiguous()  # or each block would copy its part


def _as_before(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.transpose(0, 1).reshape(x.shape).to(x.dtype)


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Some heads, some queries, and which keys of the same places are in the future of which of them."""
    heads, seq, _ = x.shape
    for start in range(0, seq, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, seq)
        future = torch.ones(stop - start, stop - start, dtype=torch.bool, device=x.device).triu_(1)
        step = heads if x.is_cuda else max(1, BLOCK_BYTES // (4 * (stop - start) * stop))
        for first in range(0, heads, step):
            yield slice(first, min(first + step, heads)), slice(start, stop), future


def _accumulate(into: Tensor, left: Tensor, right: Tensor) -> None:
    if into.dtype == left.dtype:
        into.baddbmm_(left, right)
    else:
        into.add_(torch.bmm(left, right))
