"""Which token comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the default is from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens are drawn; 0: all."""
    top_p: float = 1.0
    """Only the likeliest tokens are drawn that together reach this probability (nucleus sampling, arXiv:1904.09751)."""
    no_repeat_ngram: int = 0
    """No n tokens in a row occur twice in prompt and text; 0: they may."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigError(f"the temperature {self.temperature} must be a number of at least 0")
        if self.top_k < 0:
            raise ConfigError(f"top-k {self.top_k} must be at least 0, which means all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p {self.top_p} must be above 0 and at most 1")
        if self.no_repeat_ngram < 0:
            raise ConfigError(f"the length {self.no_repeat_ngram} of n-grams that do not repeat must be at least 0")
        if self.seed < 0:
            raise ConfigError(f"the seed {self.seed} must be at least 0")

    def draws(self, rows: Sequence[int], count: int) -> Tensor:
        """The random numbers of each row's first `count` tokens, fp64 [rows, count] in [0, 1).

        They depend on the seed and on the number of the row alone, so neither on the batch that it is in nor on the
        layout of the model.
        """
        if self.temperature == 0:
            return torch.zeros(len(rows), count, dtype=torch.float64)
        return torch.from_numpy(np.stack([np.random.default_rng([self.seed, row]).random(count) for row in rows]))


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each row, int64 [batch], for fp32 `logits` [batch, vocabulary] and `draws` [batch].

    The distribution's cumulative sum is inverted at the draw, so equal draws give equal tokens.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    ids = None
    if 0 < sampling.top_k < logits.shape[-1]:
        logits, ids = logits.topk(sampling.top_k, dim=-1)
    elif sampling.top_p < 1:
        logits, ids = logits.sort(dim=-1, descending=True)
    cumulative = logits.softmax(-1).double().cumsum(-1)
    if sampling.top_p < 1:
        # The token that reaches the threshold is the last one that counts.
        last = (cumulative < sampling.top_p).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
        total = cumulative.gather(-1, last)
    else:
        total = cumulative[:, -1:]
    found = torch.searchsorted(cumulative, draws[:, None].to(cumulative) * total, right=True)
    found = found.clamp(max=logits.shape[-1] - 1)
    return (found if ids is None else ids.gather(-1, found))[:, 0]


def forbid_repeats(logits: Tensor, tokens: Tensor, lengths: Sequence[int], size: int) -> Tensor:
    """`logits` [batch, vocabulary] with -inf where a token would end an n-gram that its row has had already.

    `tokens` [batch, >= length] are what the rows hold; `size` is n.
    """
    logits = logits.clone()
    for row, length in enumerate(lengths):
        if length < size:
            continue
        own = tokens[row, :length]
        grams = own.unfold(0, size, 1)
        again = (grams[:, : size - 1] == own[length - size + 1 :]).all(-1)
        logits[row, grams[again, -1]] = -math.inf
    return logits
