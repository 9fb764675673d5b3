"""One objective of several losses: division by global counts, weights, and the papers' normalisation.

    L = w_lm L_LM + sum_c w_c s_c l_c        l_c = global sum of component c / its global count
    s_c = L_LM / (|C| l_c), without gradient, for the |C| components besides L_LM

so that with weights 1 the components have the same size, and together that of the cross-entropy
(arXiv:2305.14864v2: "normalized such that the total magnitude for distillation loss matches the
cross-entropy loss"). Without the language-model term (w_lm = 0) L_LM still gives the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .base import LossTerm

LM = "lm"
"""The name of the cross-entropy among the terms; needed where scales are made, even with weight 0."""


@dataclass(frozen=True)
class Normalisation:
    """How components are brought to the size of the cross-entropy."""

    enabled: bool = True
    smallest: float = 1e-4
    largest: float = 1e4
    momentum: float = 0.0
    """Of an exponential moving average of the scales; 0: those of the given means alone."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ConfigError(f"scales must be clamped to 0 < smallest <= largest, not {self.smallest}..{self.largest}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum} of the scales must be at least 0 and below 1")

    def scales(self, means: Mapping[str, Tensor], previous: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """s_c of every component but the cross-entropy, without gradient; all 1 when disabled.

        Args:
            means: global mean of each component and of `lm`: sums that were reduced over data-parallel ranks and
                micro-batches. Local means would make the objective depend on the layout.
            previous: the scales of the step before, for the moving average.

        A component that is 0, as of a student that equals its teacher, gets the largest scale, which keeps it 0.
        """
        components = {name: mean.detach() for name, mean in means.items() if name != LM}
        if not self.enabled:
            return {name: torch.ones_like(mean) for name, mean in components.items()}
        target = means[LM].detach() / max(len(components), 1)
        fresh = {name: (target / mean).nan_to_num_(nan=self.largest) for name, mean in components.items()}
        scales = {name: scale.clamp_(self.smallest, self.largest) for name, scale in fresh.items()}
        if previous:
            return {name: torch.lerp(scale, previous.get(name, scale), self.momentum) for name, scale in scales.items()}
        return scales


def means_of(terms: Mapping[str, LossTerm]) -> dict[str, Tensor]:
    """Each component's mean, for terms whose sums and counts are global; 0 where nothing counts."""
    return {name: term.sum / term.count.clamp_min(1) for name, term in terms.items()}


def objective(
    terms: Mapping[str, LossTerm],
    counts: Mapping[str, Tensor],
    *,
    weights: Mapping[str, float],
    scales: Mapping[str, Tensor],
) -> Tensor:
    """This rank's and micro-batch's share of L: shares add up to it, and so do their gradients.

    Args:
        terms: the components of a micro-batch on a rank.
        counts: the global count of each: over all micro-batches of the step and all data-parallel ranks.
        weights: w_c; 1 where not given.
        scales: s_c of `Normalisation`; 1 where not given.
    """
    shares = [
        weights.get(name, 1.0) * scales.get(name, 1.0) * term.sum / counts[name].clamp_min(1)
        for name, term in terms.items()
        if weights.get(name, 1.0) != 0
    ]
    if not shares:
        raise ConfigError("every loss has weight 0; give one of them another")
    return torch.stack(shares).sum()
