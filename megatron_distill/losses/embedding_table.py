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
from .collectives import rank_in, size_of, total_over
from .squared_error import squared_error_sum


def embedding_table_loss(
    student: Tensor, teacher: Tensor, *, group: dist.ProcessGroup | None, vocab_size: int | None = None
) -> Tensor:
    """Mean over the rows of all ranks and over features of squared differences.

    Args:
        student, teacher: this rank's rows, [vocab of this rank, hidden].
        group: the ranks over which rows are split; None: not split. One collective of one number.
        vocab_size: rows of the whole table that count, the first ones; None: all.

    Raises:
        ConfigError: teacher and student differ in vocabulary or width.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"the teacher's embedding table is {list(teacher.shape)} [vocabulary of a rank, hidden] and the student's "
            f"{list(student.shape)}; this loss needs the same vocabulary and width"
        )
    rows = student.shape[0]
    count = rows * size_of(group) if vocab_size is None else vocab_size
    own = min(max(count - rank_in(group) * rows, 0), rows)
    return total_over(group, squared_error_sum(student[:own], teacher[:own], None)) / count


@loss("embedding-table")
@dataclass(frozen=True)
class EmbeddingTable:
    """The whole table, once a micro-batch."""

    components = ("embedding",)

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the tables differ in width."""
        if teacher.hidden_size != student.hidden_size:
            raise ConfigError(
                f"--loss embedding-table needs tables of the same width: the teacher's is {teacher.hidden_size}, the "
                f"student's {student.hidden_size}; leave this loss out, or give a teacher of the student's width"
            )

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """The table."""
        return (Tap("embedding"),)

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Component `embedding`: the tables differ as much for every token."""
        tap = Tap("embedding")
        student, teacher = inputs.student[tap], inputs.teacher[tap]
        mean = embedding_table_loss(student, teacher, group=inputs.group, vocab_size=inputs.vocab_size)
        return {"embedding": mean * inputs.mask.sum()}
