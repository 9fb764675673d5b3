"""A teacher in the student's own processes, in the same tensor-parallel layout: for one GPU, or a few."""

from __future__ import annotations

from collections.abc import Collection

import torch
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.tap import Tap

from .model import FrozenTeacher


class ColocatedTeacher:
    """Runs the teacher on a micro-batch when the student asks for it."""

    def __init__(self, teacher: FrozenTeacher) -> None:
        self.teacher = teacher
        self.tables = teacher.tables()
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
