"""Counting rules, against a count that names every tensor."""

from __future__ import annotations

import math

import pytest

from megatron_distill.config import cost


def tensors(layers: int, d: int, f: int, heads: int, rows: int, *, bias: bool, full: bool) -> list[tuple[int, ...]]:
    """Shapes of all parameters of a PaLM decoder."""
    norm = [(d,)] * (2 if bias else 1)
    qk = [(d if full else d // heads,)] * (2 if bias else 1)
    block = [*norm, *qk, *qk, (3 * d + 2 * f, d), (d, d + f)]
    if bias:
        block += [(3 * d + 2 * f,), (d,)]
    return [*block * layers, (rows, d), *norm]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(1, 8, 16, 2, 32), (5, 64, 96, 4, 100)])
def test_parameters_are_the_sum_of_all_tensors(size: tuple[int, int, int, int, int], bias: bool, full: bool) -> None:
    wanted = sum(math.prod(shape) for shape in tensors(*size, bias=bias, full=full))
    assert cost.palm_parameters(*size, bias=bias, qk_norm="full" if full else "per-head") == wanted


def test_true_flops_are_three_forwards_of_every_product() -> None:
    layers, d, f, rows, seq = 3, 8, 12, 32, 7
    products = layers * ((3 * d + 2 * f) * d + d * (d + f)) + rows * d
    forward = sum(2 * products + layers * 2 * 2 * d * (position + 1) for position in range(seq))
    assert cost.true_flops_per_token(layers, d, f, rows, seq) * seq == pytest.approx(3 * forward, rel=1e-12)


def test_a_teacher_costs_its_forward() -> None:
    assert cost.paper_flops(10, 7, 100) == 6 * 10 * 7 + 2 * 100 * 7
