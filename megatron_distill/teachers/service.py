"""What a separate teacher does for a student, as both sides compute it: which micro-batches, which messages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from megatron_distill.batch import Batch
from megatron_distill.config.run import Layout
from megatron_distill.tap import Tap

from .needs import TABLES, Needs
from .routes import Forms, Messages, Pairing, Seat, job_rank, plan_messages, seats
from .wire import Stamp, message_bytes

END = -1
"""In place of a credit: the student takes no more."""


@dataclass(frozen=True)
class Service:
    """A run's teacher and student, and the micro-batches between them."""

    student: Layout
    teacher: Layout
    forms: Forms
    needs: Needs
    layers_at: Callable[[int], tuple[int, ...]]
    """The student's layers at a step."""
    measures_at: Callable[[int], bool]
    """Whether the student measures a step before it trains on it, and so needs the teacher twice."""
    steps: range
    """Those that are served."""
    credits: int
    """Micro-batches of a student replica that each of its servers may be ahead."""

    @property
    def pairing(self) -> Pairing:
        """Which replicas go together."""
        return Pairing(teacher=self.teacher.data, student=self.student.data)

    def student_rank(self, replica: int, seat: Seat) -> int:
        """A student rank's number in the job."""
        return job_rank(self.student, seat, replica, 0)

    def teacher_rank(self, replica: int, seat: Seat) -> int:
        """A teacher rank's number in the job."""
        return job_rank(self.teacher, seat, replica, self.student.world_size)

    @property
    def controller(self) -> Seat:
        """The student rank of a replica that gives credits: it needs the teacher for each micro-batch, and last."""
        return Seat(self.student.pipeline - 1, 0)

    def controllers(self, teacher_replica: int) -> dict[int, int]:
        """The controllers, as ranks of the job, of the student replicas that a teacher replica serves."""
        return {r: self.student_rank(r, self.controller) for r in self.pairing.served(teacher_replica)}

    def members(self, teacher_replica: int) -> list[int]:
        """Ranks of the job that are a teacher replica."""
        return [self.teacher_rank(teacher_replica, seat) for seat in seats(self.teacher)]

    def bridges(self) -> tuple[tuple[int, ...], ...]:
        """Ranks of the job that exchange messages, a set for each group of replicas."""
        pairing = self.pairing
        found: list[list[int]] = [[] for _ in range(pairing.num_groups)]
        for replica in range(pairing.student):
            group = found[pairing.group_of_student(replica)]
            group += [self.student_rank(replica, seat) for seat in seats(self.student)]
        for replica in range(pairing.teacher):
            group = found[pairing.group_of_teacher(replica)]
            group += [self.teacher_rank(replica, seat) for seat in seats(self.teacher)]
        return tuple(tuple(sorted(group)) for group in found)

    def numbers(self) -> Iterator[int]:
        """Micro-batches of each student replica in the order in which it takes them, counted from the beginning of the
        run."""
        per_step = self.student.num_microbatches
        for step in self.steps:
            for _ in range(2 if self.measures_at(step) else 1):
                yield from range(step * per_step, (step + 1) * per_step)

    def items(self, teacher_replica: int) -> Iterator[tuple[int, int]]:
        """(micro-batch, student replica) in the order in which a teacher replica serves them."""
        pairing = self.pairing
        for number in self.numbers():
            for replica in pairing.served(teacher_replica):
                if pairing.server(replica, number) == teacher_replica:
                    yield number, replica

    def first_sample(self, number: int, replica: int) -> int:
        """Position in the data of a micro-batch's first sample."""
        return (number * self.student.data + replica) * self.forms.micro_batch_size

    def stamp(self, number: int, replica: int, batch: Batch | None) -> Stamp:
        """What a message about a micro-batch says it is about."""
        first, tokens = self.first_sample(number, replica), None if batch is None else batch.tokens
        return Stamp(number, first, self.forms.micro_batch_size, tokens)

    def messages_at(self, number: int) -> Messages:
        """Messages about a micro-batch."""
        return self._messages(self.layers_at(number // self.student.num_microbatches), tables=False)

    def table_messages(self) -> Messages:
        """Messages that cross once, before the first micro-batch."""
        return self._messages(self.layers_at(self.steps.start), tables=True)

    def tables_of(self, stage: int) -> list[Tap]:
        """The tables that ranks of a stage of the student need."""
        wanted = self.needs.by_stage(self.layers_at(self.steps.start), self.student.pipeline, self.teacher.pipeline)
        return [tap for tap, _ in wanted[stage] if tap.kind in TABLES]

    def bytes_per_token(self, number: int) -> float:
        """What crosses the bridge for a token of a micro-batch, headers included."""
        total = sum(message_bytes(slices) for slices in self.messages_at(number).values())
        return total / (self.forms.seq_length * self.forms.micro_batch_size)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - one service lives as long as its run
    def _messages(self, layers: tuple[int, ...], *, tables: bool) -> Messages:
        wanted = self.needs.by_stage(layers, self.student.pipeline, self.teacher.pipeline)
        chosen = [[(tap, at) for tap, at in taps if (tap.kind in TABLES) == tables] for taps in wanted]
        return plan_messages(chosen, self.forms, self.teacher.tensor, self.student.tensor)
