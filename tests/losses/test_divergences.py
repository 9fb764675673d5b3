"""Golden vectors, identities, gradients and limits of the divergences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.divergences import DIVERGENCES, divergence, log_softmax, value_and_gradient
from tests.losses import oracles

P, Q = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64), torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
GOLDEN = [
    ("forward-kl", {}, 1.101868),
    ("reverse-kl", {}, 1.002104),
    ("skew-kl", {"alpha": 0.1}, 0.788347),
    ("skew-reverse-kl", {"alpha": 0.1}, 0.753149),
    ("jsd", {"beta": 0.9}, 0.086497),
    ("jsd", {"beta": 0.1}, 0.092674),
    ("jsd", {"beta": 0.5}, 0.230645),
    ("tvd", {}, 0.6),
    ("symmetric", {"beta": 0.9}, 1.012081),
]


def both(name: str, teacher: Tensor, student: Tensor, temperature: float = 1.0, **parameters: float) -> tuple:
    which = divergence(name, **parameters)
    return value_and_gradient(which, student, teacher, group=None, temperature=temperature)


def value(name: str, teacher: Tensor, student: Tensor, **parameters: float) -> Tensor:
    return both(name, teacher, student, **parameters)[0]


@pytest.mark.parametrize(("name", "parameters", "expected"), GOLDEN)
def test_golden_vectors(name: str, parameters: dict, expected: float) -> None:
    assert value(name, P.log(), Q.log(), **parameters).item() == pytest.approx(expected, abs=5e-7)


def logits(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    ("name", "parameters"), [*((name, {}) for name in DIVERGENCES), ("skew-kl", {"alpha": 0.7}), ("jsd", {"beta": 0.3})]
)
def test_value_and_gradient_equal_autograd_of_the_definition(name: str, parameters: dict, temperature: float) -> None:
    teacher, student = logits(1, 6, 11), logits(2, 6, 11).requires_grad_()
    expected = oracles.divergence(name, teacher / temperature, student / temperature, **parameters) * temperature**2
    (gradient,) = torch.autograd.grad(expected.sum(), student)
    found = both(name, teacher, student.detach(), temperature, **parameters)
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found[1], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("name", "parameter"), [("skew-kl", "alpha"), ("skew-reverse-kl", "alpha"), ("jsd", "beta")])
def test_fp32_is_accurate_where_one_is_nearly_all_of_the_mixture(
    name: str, parameter: str, weight: float, swapped: bool
) -> None:
    """Half of the vocabulary is e^-80 times as likely in one model; the difference of two such logarithms is bad."""
    x, y = logits(20, 200, 64, scale=1), logits(21, 200, 64, scale=1)
    x[:, :32] += 10
    y[:, :32] -= 70
    teacher, student = (x, y) if swapped else (y, x)
    found = value(name, teacher.float(), student.float(), **{parameter: weight})
    exact = value(name, teacher.float().double(), student.float().double(), **{parameter: weight})
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_model_distilled_from_itself_has_exactly_no_loss_and_no_gradient(name: str, dtype: torch.dtype) -> None:
    x = logits(3, 50, 97, scale=8).to(dtype)
    found, gradient = both(name, x, x.clone(), 1.7)
    assert found.abs().max() == 0 and gradient.abs().max() == 0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_logits_of_minus_infinity(name: str) -> None:
    """The value stays finite, and the gradient is that of what is summed."""
    teacher, student = logits(4, 4, 9), logits(5, 4, 9)
    teacher[0, 1] = teacher[2, 3] = teacher[2, 5] = -math.inf
    student[1, 2] = student[2, 3] = student[3, 0] = -math.inf
    found, gradient = both(name, teacher, student)
    assert found.isfinite().all() and gradient.isfinite().all()
    assert gradient[student.isneginf()].abs().max() == 0
    step = 1e-6
    for token in range(4):
        for v in range(9):
            if student[token, v].isneginf():
                continue
            up, down = student.clone(), student.clone()
            up[token, v] += step
            down[token, v] -= step
            slope = (value(name, teacher, up) - value(name, teacher, down))[token] / (2 * step)
            assert gradient[token, v].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_extreme_logits_are_finite_in_fp32(name: str) -> None:
    teacher = torch.tensor([[300.0, 0, -300], [1e4, -1e4, 0], [0, 0, 0]])
    student = torch.tensor([[-300.0, 0, 300], [-1e4, 1e4, 0], [200, -200, 0]])
    found, gradient = both(name, teacher, student)
    assert found.isfinite().all() and gradient.isfinite().all() and (found >= 0).all()


ROWS = st.lists(st.floats(-12, 12), min_size=4, max_size=4).map(lambda x: torch.tensor([x], dtype=torch.float64))
NEAR = st.lists(st.floats(-4, 4), min_size=4, max_size=4).map(lambda x: torch.tensor([x], dtype=torch.float64))
INNER = st.floats(0.02, 0.98)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, st.sampled_from(sorted(DIVERGENCES)))
def test_is_never_negative_and_zero_only_for_equals(p: Tensor, q: Tensor, name: str) -> None:
    found = value(name, p, q).item()
    assert found > -1e-13
    distance = (p.softmax(-1) - q.softmax(-1)).abs().sum().item()
    if distance > 1e-4:
        assert found > 1e-12
    assert value(name, p, p + 1.25).abs().item() < 1e-13, "a constant added to all logits changes nothing"


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, INNER)
def test_jsd_is_made_of_two_skew_divergences(p: Tensor, q: Tensor, beta: float) -> None:
    parts = beta * value("skew-kl", p, q, alpha=beta) + (1 - beta) * value("skew-reverse-kl", p, q, alpha=1 - beta)
    assert value("jsd", p, q, beta=beta).item() == pytest.approx(parts.item(), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_symmetries_and_bounds(p: Tensor, q: Tensor) -> None:
    for name in ("jsd", "tvd"):
        parameters = {"beta": 0.5} if name == "jsd" else {}
        forth, back = value(name, p, q, **parameters), value(name, q, p, **parameters)
        assert forth.item() == pytest.approx(back.item(), abs=1e-12)
    assert value("jsd", p, q, beta=0.5).item() <= math.log(2) + 1e-12
    assert value("tvd", p, q).item() <= 1 + 1e-12
    assert value("forward-kl", p, q).item() == pytest.approx(value("reverse-kl", q, p).item(), abs=1e-12)
    assert 2 * value("tvd", p, q).item() ** 2 <= value("forward-kl", p, q).item() + 1e-12, "Pinsker"


@settings(max_examples=40, deadline=None)
@given(NEAR, NEAR)
def test_limits(p: Tensor, q: Tensor) -> None:
    for skewed, plain in (("skew-kl", "forward-kl"), ("skew-reverse-kl", "reverse-kl")):
        gaps = [(value(skewed, p, q, alpha=a) - value(plain, p, q)).abs().item() for a in (1e-6, 1e-9, 1e-12)]
        assert gaps[2] < 1e-5 and gaps[2] <= gaps[0] + 1e-12
        assert value(skewed, p, q, alpha=1 - 1e-12).abs().item() < 1e-5
    assert value("symmetric", p, q, beta=0).item() == pytest.approx(value("forward-kl", p, q).item(), abs=1e-13)
    assert value("symmetric", p, q, beta=1).item() == pytest.approx(value("reverse-kl", p, q).item(), abs=1e-13)


def test_log_softmax_equals_torch() -> None:
    x = logits(6, 5, 33, scale=20)
    torch.testing.assert_close(log_softmax(x, None), x.log_softmax(-1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("forward-lk", {}, "did you mean forward-kl"),
        ("jsd", {"beta": 1.0}, "beta=1.0"),
        ("skew-kl", {"alpha": 0.0}, "alpha=0.0"),
        ("tvd", {"alpha": 0.5}, "alpha"),
    ],
)
def test_mistakes(name: str, parameters: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        divergence(name, **parameters)
