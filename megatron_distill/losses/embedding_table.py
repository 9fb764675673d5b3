"""The embedding table against the teacher's (arXiv:2305.14864v2; TinyBERT, arXiv:1909.10351, Eq. 9).

    loss = mean over rows and features of (E_student - E_teacher)^2

Where input and output share the table, this pins the output projection too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .base import LossInputs, LossTerm, Tap, loss
from .collectives import size_of, total_over
from .squared_error import squared_error_sum


def embedding_table_loss(student: Tensor, teacher: Tensor, *, group: dist.ProcessGroup | None) -> LossTerm:
    """Sum over the rows of all ranks of the mean over features of squared differences, and how many rows there are.

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
    rows = torch.tensor(student.shape[0] * size_of(group), device=student.device)
    return LossTerm(total_over(group, squared_error_sum(student, teacher, None)), rows)


@loss("embedding-table")
@dataclass(frozen=True)
class EmbeddingTable:
    """The whole table, once a micro-batch."""

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """The table."""
        return (Tap("embedding"),)

    def __call__(self, inputs: LossInputs) -> dict[str, LossTerm]:
        """The component `embedding`."""
        tap = Tap("embedding")
        return {"embedding": embedding_table_loss(inputs.student[tap], inputs.teacher[tap], group=inputs.group)}
