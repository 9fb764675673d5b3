"""What is drawn, and how often."""

from __future__ import annotations

import math

import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.generation.sampling import Sampling, choose, forbid_repeats

PROBABILITIES = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
LOGITS = PROBABILITIES.log() + 3.0


def frequencies(sampling: Sampling, logits: torch.Tensor = LOGITS, count: int = 20000) -> torch.Tensor:
    """How often each token is drawn."""
    draws = Sampling(seed=5).draws([0], count)[0]
    return torch.bincount(choose(logits.expand(count, -1), draws, sampling), minlength=5) / count


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (Sampling(), PROBABILITIES),
        (Sampling(temperature=0.5), PROBABILITIES**2 / (PROBABILITIES**2).sum()),
        (Sampling(top_k=2), torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65),
        (Sampling(top_p=0.6), torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65),
        (Sampling(top_p=0.7), torch.tensor([0, 0.4, 0, 0.25, 0.2]) / 0.85),
        (Sampling(top_p=0.01), torch.tensor([0, 1.0, 0, 0, 0])),
        (Sampling(top_k=3, top_p=0.7), torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65),
        (Sampling(top_k=99), PROBABILITIES),
        (Sampling(temperature=0), torch.tensor([0, 1.0, 0, 0, 0])),
    ],
    ids=str,
)
def test_frequencies_are_the_distribution(sampling: Sampling, wanted: torch.Tensor) -> None:
    found = frequencies(sampling)
    assert torch.allclose(found, wanted, atol=0.012), found
    assert not found[wanted == 0].any()


def test_what_is_impossible_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(3, -1)
    draws = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    for sampling in (Sampling(), Sampling(top_p=0.999), Sampling(top_k=4)):
        assert set(choose(logits, draws, sampling).tolist()) <= {1, 3}


def test_draws_belong_to_the_row() -> None:
    sampling = Sampling(seed=3)
    assert torch.equal(sampling.draws([4, 9], 6)[1], sampling.draws([9, 4], 8)[0, :6])
    assert not torch.equal(sampling.draws([4], 6), sampling.draws([5], 6))
    assert not torch.equal(sampling.draws([4], 6), Sampling(seed=4).draws([4], 6))


def test_a_repeated_ngram_is_forbidden() -> None:
    tokens = torch.tensor([[1, 2, 3, 1, 2, 0], [1, 2, 0, 0, 0, 0]])
    found = forbid_repeats(torch.zeros(2, 5), tokens, [5, 2], 3)
    assert found.tolist() == [[0, 0, 0, -math.inf, 0], [0] * 5]
    assert forbid_repeats(torch.zeros(1, 3), torch.tensor([[2, 2]]), [2], 2).tolist() == [[0, 0, -math.inf]]
    assert forbid_repeats(torch.zeros(2, 5), tokens, [5, 2], 1).isinf().sum(1).tolist() == [3, 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": -1.0}, "temperature -1.0 must be"),
        ({"temperature": math.nan}, "temperature nan must be"),
        ({"top_k": -1}, "top-k -1 must be"),
        ({"top_p": 0.0}, "top-p 0.0 must be"),
        ({"top_p": 1.5}, "top-p 1.5 must be"),
        ({"no_repeat_ngram": -2}, "-2 of n-grams"),
        ({"seed": -1}, "seed -1 must be"),
    ],
)
def test_settings_that_mean_nothing(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sampling(**values)
