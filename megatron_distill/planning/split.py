"""One way to divide the ranks, with what to expect of it."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_distill.config.run import Layout

from .memory import Memory


@dataclass(frozen=True, kw_only=True)
class Split:
    """One way to use all ranks, the student's first, and what to expect of it."""

    placement: str
    student: Layout
    teacher: Layout | None
    """Of a teacher on its own ranks; a colocated one has the student's."""
    micro_batch_size: int
    student_seconds: float
    teacher_seconds: float
    step_seconds: float
    """A distillation step."""
    seed_step_seconds: float
    hours: float
    student_memory: Memory
    teacher_memory: Memory | None
    limit: float
    """Bytes that a rank may use."""

    @property
    def wait_share(self) -> float:
        """Of a step, in which the student waits for the teacher or the bridge."""
        return 1 - self.student_seconds / self.step_seconds if self.teacher else 0.0

    @property
    def memory(self) -> float:
        """Bytes of the fullest rank of all."""
        return max(self.student_memory.total, self.teacher_memory.total if self.teacher_memory else 0.0)

    @property
    def fits(self) -> bool:
        """Whether every rank has the memory."""
        return self.memory <= self.limit

    @property
    def gpus(self) -> int:
        """Ranks of both roles."""
        return self.student.world_size + (self.teacher.world_size if self.teacher else 0)
