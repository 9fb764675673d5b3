"""Vanilla distillation: a divergence from the teacher beside the cross-entropy (arXiv:2305.14864v2, Eq. 3).

The paper's divergence is read as KL(teacher || student), DistilBERT's convention; any other of the family goes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from megatron_distill.config.error import ConfigError

from .base import LossInputs, LossTerm, Tap, loss
from .distill_logits import distill_logits
from .divergences import Divergence, divergence
from .total import LM


@loss("vanilla")
@dataclass(frozen=True)
class Vanilla:
    """Cross-entropy and a divergence, separable, for `total.py` to weight.

    Who knows the weights before the forward pass calls `distill_logits` with them and saves a third of the products.
    """

    divergence: str = "forward-kl"
    temperature: float = 1.0
    beta: float | None = None
    """Of jsd; None: the default."""
    alpha: float | None = None
    """Of skew-kl and skew-reverse-kl; None: the default."""

    @cached_property
    def which(self) -> Divergence:
        """The divergence with its parameters. Raises ConfigError where they do not belong to it."""
        given = {"beta": self.beta, "alpha": self.alpha}
        return divergence(self.divergence, **{name: value for name, value in given.items() if value is not None})

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """Final hidden states and the output matrix."""
        return Tap("final_hidden"), Tap("output_weight")

    def __call__(self, inputs: LossInputs) -> dict[str, LossTerm]:
        """Components `lm` and `logits`, of all tokens of the micro-batch. Raises ConfigError without a teacher."""
        if inputs.teacher_signal is None:
            raise ConfigError("loss vanilla needs the teacher's final hidden states, logits or largest probabilities")
        found = distill_logits(
            inputs.student[Tap("final_hidden")].flatten(0, 1),
            inputs.student[Tap("output_weight")],
            inputs.teacher_signal,
            inputs.labels.flatten(),
            inputs.mask.flatten(),
            which=self.which,
            group=inputs.group,
            temperature=self.temperature,
            reduce_hidden_gradient=not inputs.sequence_parallel,
        )
        return {LM: LossTerm(found.lm_sum, found.num_tokens), "logits": LossTerm(found.kd_sum, found.num_tokens)}
