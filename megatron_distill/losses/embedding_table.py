"""The embedding table against the teacher's (arXiv:2305.14864v2; TinyBERT, arXiv:1909.10351, Eq. 9).

    loss = mean over rows and features of (E_student - E_teacher)^2

Where input and output share the table, this pins the output projection too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .base import LossInputs, loss
from .collectives import size_of, total_over
from .squared_error import squared_error_sum


def embedding_table_loss(student: Tensor, teacher: Tensor, *, group: dist.ProcessGroup | None) -> Tensor:
    """Mean over the rows of all ranks and over features of squared differences.

    Args:
        student, teacher: this rank's rows, [vocab of this rank, hidden].
        group: the ranks over which rows are split; None: not split. One collective of one number.

    Raises:
        ConfigError: teacher and student differ in vocabulary or width.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"the teacher's embedding table is {list(teacher.shape)} [vocabulary of a rank, hidden] and the student's "
            f"{list(student.shape)}; this loss needs the same vocabulary and width"
        )
    return total_over(group, squared_error_sum(student, teacher, None)) / (student.shape[0] * size_of(group))


@loss("embedding-table")
@dataclass(frozen=True)
class EmbeddingTable:
    """The whole table, once a micro-batch."""

    components = ("embedding",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the tables differ in size."""
        sizes = [f"{m.padded_vocab_size} x {m.hidden_size}" for m in (teacher, student)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"--loss embedding-table needs tables of the same size: the teacher's is {sizes[0]}, the student's "
                f"{sizes[1]}"
            )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """The table."""
        return (Tap("embedding"),)

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Component `embedding`: the tables differ as much for every token."""
        tap = Tap("embedding")
        mean = embedding_table_loss(inputs.student[tap], inputs.teacher[tap], group=inputs.group)
        return {"embedding": mean * inputs.mask.sum()}
