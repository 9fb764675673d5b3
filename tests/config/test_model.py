"""Sizes as published."""

from __future__ import annotations

import pytest

from megatron_distill.config import cost
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig

PUBLISHED = {"180m": 177_514_496, "300m": 303_515_648, "610m": 606_687_232, "1.1b": 1_110_347_776}
V1, V2 = 20e9, 9_500 * 2_097_152
FLOPS = [  # arXiv:2305.14864, Table 4 of v1 and v2: student, teacher, tokens, printed, decimals
    ("180m", None, V2, 21.22, 2),
    ("180m", "300m", V2, 33.31, 2),
    ("610m", None, V2, 72.52, 2),
    ("610m", "1.1b", V2, 116.76, 2),
    ("180m", None, V1, 21.3, 1),
    ("180m", "300m", V1, 33.44, 2),
    ("610m", None, V1, 72.8, 1),
    ("610m", "1.1b", V1, 117.2, 1),
]


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones(size: str) -> None:
    assert ModelConfig(model=f"palm-{size}-paper").shape().num_parameters() == PUBLISHED[size]


def test_half_of_the_300m_model_has_the_size_of_the_180m_one() -> None:
    assert ModelConfig(model="palm-300m-paper").shape().num_parameters(12) == PUBLISHED["180m"]


@pytest.mark.parametrize(("student", "teacher", "tokens", "printed", "decimals"), FLOPS)
def test_flops_are_the_published_ones(
    student: str, teacher: str | None, tokens: float, printed: float, decimals: int
) -> None:
    flops = cost.paper_flops(PUBLISHED[student], tokens, PUBLISHED[teacher] if teacher else 0)
    assert round(flops / 1e18, decimals) == printed


def test_true_flops_count_attention_and_the_output_projection() -> None:
    counted = cost.true_flops_per_token(24, 1024, 2048, 50304, 2048)
    assert counted == 6 * (251_658_240 + 51_511_296) + 6 * 24 * 1024 * 2049


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"model": "palm-300"}, "did you mean palm-300m"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "--hidden-size 100"),
        ({"ffn_hidden_size": 130}, "--ffn-hidden-size 130"),
    ],
)
def test_impossible_sizes_are_said(flags: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**flags).shape()  # type: ignore[arg-type]


def test_the_vocabulary_is_padded() -> None:
    assert ModelConfig(model="palm-300m").shape().padded_vocab_size == 50304
    assert ModelConfig().shape(tokenizer_vocab_size=4096).padded_vocab_size == 4096
    assert ModelConfig().shape(tokenizer_vocab_size=4097).padded_vocab_size == 4224
