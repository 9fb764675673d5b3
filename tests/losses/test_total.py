"""The papers' normalisation."""

from __future__ import annotations

import math

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.total import Normalisation

MEANS = {"lm": 3.0, "qk": 0.4, "vv": 0.05, "hidden": 140.0}


def test_components_get_equal_size_and_together_that_of_the_cross_entropy() -> None:
    scales = Normalisation().scales(MEANS)
    assert set(scales) == {"qk", "vv", "hidden"}
    assert [scale * MEANS[name] for name, scale in scales.items()] == pytest.approx([1.0] * 3)


def test_scales_are_clamped_and_can_be_switched_off() -> None:
    means = {"lm": 2.0, "a": 0.0, "b": 1e9}
    assert Normalisation().scales(means) == {"a": 1e4, "b": 1e-4}
    assert Normalisation(enabled=False).scales(means) == {"a": 1.0, "b": 1.0}
    assert Normalisation().scales({"lm": 0.0, "a": 0.0}) == {"a": 1e4}
    assert Normalisation().scales({"lm": math.nan, "a": 1.0}) == {"a": 1e4}


def test_means_are_averaged_over_steps() -> None:
    averaged = Normalisation(momentum=0.75).average({"lm": 2.0, "a": 1.0}, before={"lm": 6.0, "a": 5.0})
    assert averaged == pytest.approx({"lm": 5.0, "a": 4.0})
    assert Normalisation(momentum=0).average(MEANS, before={"lm": 9.0}) == MEANS


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_the_averages_alone(broken: float) -> None:
    assert Normalisation().average({"lm": 2.0, "a": broken}, before={"a": 10.0}) == {"a": 10.0}


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="clamped"):
        Normalisation(smallest=2, largest=1)
    with pytest.raises(ConfigError, match=r"momentum=1\.0"):
        Normalisation(momentum=1.0)
