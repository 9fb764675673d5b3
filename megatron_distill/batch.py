"""One micro-batch of text, the value that data hands to training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tokens and what to predict from them; every tensor is [micro-batch, seq]."""

    tokens: Tensor
    """int64 inputs."""
    labels: Tensor
    """int64: `labels[b, s]` is the token that follows `tokens[b, s]`."""
    loss_mask: Tensor
    """float32: 1 where the prediction counts, 0 where it does not."""
    position_ids: Tensor
    """int64, 0 .. seq-1."""
