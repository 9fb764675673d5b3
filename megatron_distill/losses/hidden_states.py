"""Hidden states of every kept layer against the teacher's (arXiv:2305.14864v2; TinyBERT, arXiv:1909.10351,
Eq. 8 without the projection, for pruning layers leaves the width alone).

    loss = mean over tokens and features of (H_student - H_teacher)^2, H the residual stream after the layer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .collectives import rank_in, size_of, total_over
from .squared_error import squared_error_sum


def hidden_state_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, *, group: dist.ProcessGroup | None, sequence_parallel: bool
) -> Tensor:
    """Sum over counted tokens of the mean over features of squared differences.

    Args:
        student, teacher: [seq, batch, hidden]; with sequence parallelism, this rank's part of the sequence.
        mask: 1 for the tokens that count, [seq, batch], of the whole sequence.
        group: the tensor-parallel ranks.
        sequence_parallel: whether the sequence is split over `group`; then one collective of one number.

    Raises:
        ConfigError: teacher and student differ in width.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"the teacher's hidden states are {list(teacher.shape)} [seq, batch, hidden] and the student's "
            f"{list(student.shape)}; this loss needs models of the same width"
        )
    own = mask.chunk(size_of(group))[rank_in(group)] if sequence_parallel else mask
    part = squared_error_sum(student, teacher, own)
    return total_over(group, part) if sequence_parallel else part


@loss("hidden-states")
@dataclass(frozen=True)
class HiddenStates:
    """The hidden states after every layer that the student holds."""

    components = ("hidden",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the widths differ."""
        if student.hidden_size != teacher.hidden_size:
            raise ConfigError(
                f"--loss hidden-states needs a teacher as wide as the student: its hidden size is "
                f"{teacher.hidden_size}, the student's {student.hidden_size}"
            )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """The hidden state after every layer."""
        return tuple(Tap("hidden", layer) for layer in layers)

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Component `hidden`, the sum over layers."""
        compare = partial(
            hidden_state_loss, mask=inputs.mask, group=inputs.group, sequence_parallel=inputs.sequence_parallel
        )
        parts = [compare(inputs.student[tap], inputs.teacher[tap]) for tap in self.taps(inputs.layers)]
        return {"hidden": torch.stack(parts).sum()}
