"""What counts as the same model after a conversion."""

from __future__ import annotations

import math

import pytest

from megatron_distill.checkpoint.comparison import Comparison
from megatron_distill.config.error import OutsideError
from tests.support.public_models import public_shape


def compared(difference: float, largest: float, other_tokens: str | None = None) -> Comparison:
    shape = public_shape("llama")
    return Comparison(difference, largest, tokens=64, on_text=True, shape=shape, other_tokens=other_tokens)


def test_rounding_grows_with_the_logits() -> None:
    """2e-6 of the largest logit, as real conversions have, is equal at any scale; 1e-3 of it is not."""
    for largest in (1.0, 16.5, 66.0, 132.0):
        assert "logits equal" in compared(2e-6 * largest, largest).check("m")
        with pytest.raises(OutsideError, match="NOT EQUAL"):
            compared(1e-3 * largest, largest).check("m")


def test_what_is_no_number_is_not_equal() -> None:
    with pytest.raises(OutsideError, match="NOT EQUAL"):
        compared(math.nan, 16.0).check("m")


def test_tokenizers_that_differ_are_reported_with_the_text() -> None:
    with pytest.raises(OutsideError, match="differ on the text 'abc'"):
        compared(0.0, 16.0, "abc").check("m")
