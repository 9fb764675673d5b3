"""Squared error of two tensors, a block of rows at a time: no copy or difference in fp32 is ever whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ROWS = 4096


def squared_error_sum(student: Tensor, teacher: Tensor, row_weights: Tensor | None) -> Tensor:
    """Sum over rows of weight x mean over features of (student - teacher)^2, fp32, with a gradient for `student`.

    Args:
        student, teacher: [..., features], of the same shape.
        row_weights: of that shape without features; None: all 1.
    """
    return _SquaredErrorSum.apply(student, teacher.detach(), row_weights)


class _SquaredErrorSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, row_weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(student, teacher, row_weights)
        total = torch.zeros((), dtype=_dtype(student), device=student.device)
        for difference, weights, _ in _differences(student, teacher, row_weights):
            squares = difference.square_().mean(-1)
            total += squares.sum() if weights is None else (squares * weights).sum()
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        student, teacher, row_weights = ctx.saved_tensors
        gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
        rows_of_gradient = gradient.view(-1, student.shape[-1])
        factor = grads[0] * (2 / student.shape[-1])
        for difference, weights, rows in _differences(student, teacher, row_weights):
            scale = factor if weights is None else factor * weights.unsqueeze(-1)
            rows_of_gradient[rows] = difference.mul_(scale)
        return gradient, None, None


def _dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _differences(
    student: Tensor, teacher: Tensor, row_weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, slice]]:
    """(student - teacher, weights, which rows) of each block of rows."""
    s, t = (x.reshape(-1, x.shape[-1]) for x in (student, teacher))
    weights = None if row_weights is None else row_weights.reshape(-1).to(_dtype(student))
    for start in range(0, len(s), ROWS):
        rows = slice(start, start + ROWS)
        yield s[rows].to(_dtype(s)) - t[rows].to(_dtype(s)), None if weights is None else weights[rows], rows
