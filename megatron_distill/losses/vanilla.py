"""Vanilla distillation: a divergence from the teacher beside the cross-entropy (arXiv:2305.14864v2, Eq. 3).

The paper's divergence is read as KL(teacher || student), DistilBERT's convention; any other of the family goes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .distill_logits import LogitLosses, distill_logits
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
    """Of jsd, the share of the teacher; of symmetric, the share of the reverse KL; None: the default."""
    alpha: float | None = None
    """Of skew-kl and skew-reverse-kl; None: the default."""

    @cached_property
    def which(self) -> Divergence:
        """The divergence with its parameters. Raises ConfigError where they do not belong to it."""
        given = {"beta": self.beta, "alpha": self.alpha}
        return divergence(self.divergence, **{name: value for name, value in given.items() if value is not None})

    components = ("logits",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the options do not make a divergence."""
        _ = self.which
        if self.temperature <= 0:
            raise ConfigError(f"--loss vanilla: temperature {self.temperature:g} must be above 0")

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """Final hidden states and the output matrix."""
        return Tap("final_hidden"), Tap("output_weight")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Components `lm` and `logits`, separable. Raises ConfigError without a teacher."""
        found = self.fused(inputs)
        return {LM: found.lm_sum, "logits": found.kd_sum}

    def fused(
        self,
        inputs: LossInputs,
        *,
        weights: tuple[float, float] | None = None,
        weight_gradient: Tensor | None = None,
        vocab_size: int | None = None,
        teacher_vocab_size: int | None = None,
    ) -> LogitLosses:
        """Both losses of a micro-batch, [seq, batch] flattened; the options are those of `distill_logits`."""
        if inputs.teacher_signal is None:
            raise ConfigError("loss vanilla needs the teacher's final hidden states, logits or largest probabilities")
        return distill_logits(
            inputs.student[Tap("final_hidden")].flatten(0, 1),
            inputs.student[Tap("output_weight")],
            inputs.teacher_signal,
            inputs.labels.flatten(),
            inputs.mask.flatten(),
            which=self.which,
            group=inputs.group,
            temperature=self.temperature,
            weights=weights,
            weight_gradient=weight_gradient,
            reduce_hidden_gradient=not inputs.sequence_parallel,
            vocab_size=vocab_size,
            teacher_vocab_size=teacher_vocab_size,
        )
