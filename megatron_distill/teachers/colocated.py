"""A teacher in the student's own processes, in the same tensor-parallel layout: for one GPU, or a few."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.tap import Tap

from .model import FrozenTeacher
from .routes import part


class ColocatedTeacher:
    """Runs the teacher on a micro-batch when the student asks for it."""

    def __init__(self, teacher: FrozenTeacher, student_rows: int) -> None:
        """`student_rows`: of the student's vocabulary, padding included. Collective over the tensor-parallel group."""
        self.teacher = teacher
        self.tables = {tap: _on_grid(table, student_rows, teacher.group) for tap, table in teacher.tables().items()}
        self.waited_seconds = 0.0

    def take(self, number: int, batch: Batch, taps: Collection[Tap]) -> dict[Tap, Tensor]:
        """What is tapped of the teacher for a micro-batch. Collective over the tensor-parallel group."""
        _, found = self.teacher.show(batch, taps)
        if self.teacher.model.config.sequence_parallel and Tap("final_hidden") in found:
            with torch.no_grad():
                found[Tap("final_hidden")] = gather_from_sequence_parallel_region(found[Tap("final_hidden")])
        return found

    def close(self) -> None:
        """Nothing is under way."""


@torch.no_grad()
def _on_grid(table: Tensor, rows: int, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of a table [vocab of this rank, hidden] that this rank has of a student with `rows` in all, zeros where
    the teacher has none. Collective over `group`."""
    size, rank = (1, 0) if group is None else (group.size(), group.rank())
    if len(table) * size == rows:
        return table
    whole = table
    if group is not None:
        whole = table.new_empty(len(table) * size, table.shape[1])
        dist.all_gather(list(whole.chunk(size)), table.contiguous(), group=group)
    start, stop = part(rows, size, rank)
    own = table.new_zeros(stop - start, table.shape[1])
    held = whole[start:stop]
    own[: len(held)] = held
    return own
