"""Reductions over the ranks that hold parts of a tensor; no-ops where nothing is split."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def size_of(group: dist.ProcessGroup | None) -> int:
    """Ranks of a group; None stands for a tensor that is not split."""
    return 1 if group is None else group.size()


def rank_in(group: dist.ProcessGroup | None) -> int:
    """This rank's number in a group."""
    return 0 if group is None else group.rank()


def sum_over(group: dist.ProcessGroup | None, values: Tensor) -> Tensor:
    """`values` summed over the ranks, in place. Collective over `group`; autograd does not see it."""
    if size_of(group) > 1:
        dist.all_reduce(values, group=group)
    return values


def max_over(group: dist.ProcessGroup | None, values: Tensor) -> Tensor:
    """The largest of each of `values` over the ranks, in place. Collective over `group`."""
    if size_of(group) > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=group)
    return values


def total_over(group: dist.ProcessGroup | None, part: Tensor) -> Tensor:
    """The sum of the ranks' parts of a loss on every rank; each part's gradient is that of the total.

    To sum the gradients as well, as a differentiable all-reduce does, would count each part once for every rank.
    """
    return part if size_of(group) == 1 else _TotalOver.apply(part, group)


class _TotalOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup) -> Tensor:
        return sum_over(group, part.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
