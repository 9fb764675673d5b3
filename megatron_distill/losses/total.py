"""Several losses as one objective, with the papers' normalisation.

    L = w_lm L_LM + sum_c w_c s_c l_c        l_c = component c, summed over a step's tokens, over their number
    s_c = L_LM / (|C| l_c), without gradient, for the |C| components besides L_LM

so that with weights 1 the components have the same size, and together that of the cross-entropy
(arXiv:2305.14864v2: "normalized such that the total magnitude for distillation loss matches the
cross-entropy loss"). Without the language-model term (w_lm = 0) L_LM still gives the size.

The l of a step's scales are averages over the steps before. Those of the step itself are known only after its last
micro-batch has gone forward, when in a pipeline most have gone backward as well; and a component that happens to be
tiny in one step must not be blown up in the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from megatron_distill.config.error import ConfigError

LM = "lm"
"""The name of the cross-entropy among the components; needed where scales are made, even with weight 0."""


@dataclass(frozen=True)
class Normalisation:
    """How components are brought to the size of the cross-entropy."""

    enabled: bool = True
    smallest: float = 1e-4
    largest: float = 1e4
    momentum: float = 0.9
    """Of the moving averages of the means; 0: the step before alone."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ConfigError(f"scales must be clamped to 0 < smallest <= largest, not {self.smallest}..{self.largest}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum} of the means must be at least 0 and below 1")

    def average(self, means: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
        """The averages after a step, from its global means, over all micro-batches and data-parallel ranks.

        After a step whose means are not finite they stay as they are.
        """
        if not all(map(math.isfinite, means.values())):
            return dict(before)
        keep = self.momentum
        return {name: keep * before.get(name, mean) + (1 - keep) * mean for name, mean in means.items()}

    def scales(self, means: Mapping[str, float]) -> dict[str, float]:
        """s_c of every component but the cross-entropy, from the averages of all; all 1 when disabled.

        A component that is 0, as of a student that equals its teacher, gets the largest scale, which keeps it 0.
        """
        components = {name: mean for name, mean in means.items() if name != LM}
        if not self.enabled:
            return dict.fromkeys(components, 1.0)
        target = means[LM] / max(len(components), 1)
        return {name: self._scale(target, mean) for name, mean in components.items()}

    def _scale(self, target: float, mean: float) -> float:
        if not math.isfinite(target) or not math.isfinite(mean) or mean <= 0:
            return self.largest
        return min(max(target / mean, self.smallest), self.largest)
