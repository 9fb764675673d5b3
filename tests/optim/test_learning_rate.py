"""Schedules against the golden values of the papers' runs."""

from __future__ import annotations

import pytest

from megatron_distill.optim.learning_rate import learning_rate

COMPRESS = {200: 1.0e-5, 400: 2.0e-5, 2500: 1.795709e-5, 5000: 1.158863e-5, 7500: 4.847669e-6, 10000: 2e-6}
PRETRAIN = {20000: 1.773660e-4, 40000: 1.136239e-4, 60000: 4.765481e-5}


@pytest.mark.parametrize("step", COMPRESS)
def test_compressing_the_1_1b_model(step: int) -> None:
    rate = learning_rate(step, peak=2e-5, warmup_iters=400, total_iters=10_000)
    assert rate == pytest.approx(COMPRESS[step], rel=1e-6)


@pytest.mark.parametrize("step", PRETRAIN)
def test_pretraining_the_1_1b_model(step: int) -> None:
    rate = learning_rate(step, peak=2e-4, warmup_iters=2000, total_iters=80_000)
    assert rate == pytest.approx(PRETRAIN[step], rel=1e-6)


def test_linear_and_constant_end_where_they_should() -> None:
    assert learning_rate(100, peak=1.0, warmup_iters=0, total_iters=100, style="linear") == pytest.approx(0.1)
    assert learning_rate(50, peak=1.0, warmup_iters=0, total_iters=100, style="linear") == pytest.approx(0.55)
    assert learning_rate(99, peak=1.0, warmup_iters=10, total_iters=100, style="constant") == 1.0
