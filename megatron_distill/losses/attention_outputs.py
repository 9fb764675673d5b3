"""The attention outputs of every kept layer against the teacher's: the other reading of the homotopic attention term
(arXiv:2305.14864v2 speaks of the "attention output"), at the price of hidden states instead of scores.

    loss = mean over tokens and features of (O_student - O_teacher)^2, O = softmax(...) V of all heads
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .collectives import size_of, total_over
from .squared_error import squared_error_sum


def attention_output_loss(student: Tensor, teacher: Tensor, mask: Tensor, *, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over counted tokens of the mean over the features of all heads of squared differences.

    Args:
        student, teacher: [seq, batch, heads of this rank, head dim].
        mask: 1 for the tokens that count, [seq, batch].
        group: the ranks over which heads are split; None: not split. One collective of one number.

    Raises:
        ConfigError: teacher and student differ in width.
    """
    own, other = student.flatten(2), teacher.flatten(2)
    if own.shape != other.shape:
        raise ConfigError(
            f"the teacher's attention outputs are {list(other.shape)} [seq, batch, width on a rank] and the student's "
            f"{list(own.shape)}; this loss needs attention of the same width"
        )
    return total_over(group, squared_error_sum(own, other, mask)) / size_of(group)


@loss("attention-outputs")
@dataclass(frozen=True)
class AttentionOutputs:
    """The attention outputs of every layer that the student holds."""

    components = ("attention",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the attention of one is wider."""
        widths = [m.num_attention_heads * m.head_dim for m in (teacher, student)]
        if widths[0] != widths[1]:
            raise ConfigError(
                f"--loss attention-outputs needs attention of the same width: the teacher's is {widths[0]}, the "
                f"student's {widths[1]}"
            )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """The attention output of every layer."""
        return tuple(Tap("attention_output", layer) for layer in layers)

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Component `attention`, the sum over layers."""
        parts = [
            attention_output_loss(inputs.student[tap], inputs.teacher[tap], inputs.mask, group=inputs.group)
            for tap in self.taps(inputs.layers)
        ]
        return {"attention": torch.stack(parts).sum()}
