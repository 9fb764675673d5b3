"""Weights, normalisation, and that a step does not depend on how it is cut up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.base import LossTerm
from megatron_distill.losses.total import Normalisation, means_of, objective


def term(total: float, count: float) -> LossTerm:
    return LossTerm(torch.tensor(total, requires_grad=True), torch.tensor(count))


TERMS = {"lm": term(30.0, 10), "qk": term(4.0, 10), "vv": term(0.5, 10), "hidden": term(700.0, 5)}


def test_components_get_equal_size_and_together_that_of_the_cross_entropy() -> None:
    means = means_of(TERMS)
    scales = Normalisation().scales(means)
    assert set(scales) == {"qk", "vv", "hidden"} and not any(s.requires_grad for s in scales.values())
    for name, scale in scales.items():
        assert (scale * means[name]).item() == pytest.approx(1.0)
    counts = {name: t.count for name, t in TERMS.items()}
    assert objective(TERMS, counts, weights={}, scales=scales).item() == pytest.approx(6.0)


def test_the_gradient_does_not_pass_through_the_scales() -> None:
    x = torch.tensor(4.0, requires_grad=True)
    terms = {"lm": LossTerm(torch.tensor(6.0), torch.tensor(2.0)), "qk": LossTerm(x.square(), torch.tensor(2.0))}
    scales = Normalisation().scales(means_of(terms))
    objective(terms, {n: t.count for n, t in terms.items()}, weights={"qk": 0.5}, scales=scales).backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(0.5 * (3 / 8) * 8 / 2)


def test_without_the_cross_entropy_it_still_gives_the_size() -> None:
    means, counts = means_of(TERMS), {name: t.count for name, t in TERMS.items()}
    total = objective(TERMS, counts, weights={"lm": 0}, scales=Normalisation().scales(means))
    assert total.item() == pytest.approx(3.0)
    total.backward()
    assert TERMS["lm"].sum.grad is None


def test_scales_are_clamped_and_can_be_averaged_or_switched_off() -> None:
    means: dict[str, Tensor] = {"lm": torch.tensor(2.0), "a": torch.tensor(0.0), "b": torch.tensor(1e9)}
    assert Normalisation().scales(means) == {"a": torch.tensor(1e4), "b": torch.tensor(1e-4)}
    assert Normalisation(enabled=False).scales(means) == {"a": torch.tensor(1.0), "b": torch.tensor(1.0)}
    averaged = Normalisation(momentum=0.75).scales(
        {"lm": torch.tensor(2.0), "a": torch.tensor(1.0)}, previous={"a": torch.tensor(10.0)}
    )
    assert averaged["a"].item() == pytest.approx(0.75 * 10 + 0.25 * 2)
    nothing = {"lm": torch.tensor(0.0), "a": torch.tensor(0.0)}
    assert Normalisation().scales(nothing)["a"].isfinite()


def test_shares_of_micro_batches_add_up() -> None:
    parts = [
        {"lm": term(1.0, 3), "qk": term(2.0, 3)},
        {"lm": term(5.0, 7), "qk": term(0.5, 7)},
        {"lm": term(0.0, 0), "qk": term(0.0, 0)},
    ]
    counts = {name: sum((p[name].count for p in parts), torch.tensor(0.0)) for name in ("lm", "qk")}
    whole = {name: LossTerm(sum((p[name].sum for p in parts), torch.tensor(0.0)), counts[name]) for name in counts}
    weights, scales = {"qk": 2.0}, Normalisation().scales(means_of(whole))
    shares = sum(objective(part, counts, weights=weights, scales=scales).item() for part in parts)
    assert shares == pytest.approx(objective(whole, counts, weights=weights, scales=scales).item())


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="every loss has weight 0"):
        objective({"lm": term(1.0, 1.0)}, {"lm": torch.tensor(1)}, weights={"lm": 0}, scales={})
    with pytest.raises(ConfigError, match="clamped"):
        Normalisation(smallest=2, largest=1)
    with pytest.raises(ConfigError, match=r"momentum=1\.0"):
        Normalisation(momentum=1.0)
