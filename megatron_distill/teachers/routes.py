"""Who sends which part of which tensor to whom: integers only, computed alike on both sides of the bridge.

A tensor that a loss taps is split along one dimension over the tensor-parallel ranks of the teacher and, in as many
parts as these are, over the student's. Each pair of ranks whose parts overlap exchanges the overlap, so every element
crosses once whatever the layouts. What every student rank needs whole (hidden states) is gathered there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout
from megatron_distill.tap import Tap


class Seat(NamedTuple):
    """A rank within one replica of a role."""

    stage: int
    tensor: int


@dataclass(frozen=True)
class Form:
    """A tapped tensor of one micro-batch, as a whole."""

    size: tuple[int, ...]
    dim: int
    """The dimension along which it is split."""
    dtype: torch.dtype
    is_gathered: bool
    """Whether a student rank needs all of it, not only its part."""
    grid: int | None = None
    """Length that the student's ranks divide among them, where it is not the tensor's own: the rows of the student's
    vocabulary. What the student has no rows for does not cross."""


@dataclass(frozen=True)
class Slice:
    """Part of a tensor in a message."""

    tap: Tap
    form: Form
    start: int
    stop: int
    """In the whole tensor, along `form.dim`."""

    @property
    def size(self) -> tuple[int, ...]:
        """Of the part."""
        size = list(self.form.size)
        size[self.form.dim] = self.stop - self.start
        return tuple(size)

    @property
    def nbytes(self) -> int:
        """Of the part."""
        return math.prod(self.size) * self.form.dtype.itemsize


@dataclass(frozen=True)
class Forms:
    """How big tapped tensors of a teacher are."""

    shape: ModelShape
    seq_length: int
    micro_batch_size: int
    dtype: torch.dtype
    top_k: int
    student_splits_sequence: bool
    """Whether the student runs with sequence parallelism."""
    student_rows: int | None = None
    """Rows of the student's vocabulary, padding included; None: as many as the teacher's."""

    def of(self, tap: Tap) -> Form:
        """The form of one."""
        seq, micro, shape = self.seq_length, self.micro_batch_size, self.shape
        heads = {"keys": shape.num_query_groups, "values": shape.num_query_groups}
        size: tuple[int, ...]
        if tap.kind in ("queries", "keys", "values", "attention_output"):
            size = (seq, micro, heads.get(tap.kind, shape.num_attention_heads), shape.head_dim)
            return Form(size, 2, self.dtype, is_gathered=False)
        if tap.kind in ("embedding", "output_weight"):
            size = (shape.padded_vocab_size, shape.hidden_size)
            return Form(size, 0, self.dtype, is_gathered=False, grid=self.student_rows)
        if tap.kind == "logits":
            size = (seq, micro, shape.padded_vocab_size)
            return Form(size, 2, self.dtype, is_gathered=False, grid=self.student_rows)
        if tap.kind == "hidden":
            return Form((seq, micro, shape.hidden_size), 0, self.dtype, not self.student_splits_sequence)
        if tap.kind == "final_hidden":
            return Form((seq, micro, shape.hidden_size), 0, self.dtype, is_gathered=True)
        width, dtype = {
            "top_log_probs": (self.top_k, torch.float32),
            "top_indices": (self.top_k, torch.int32),
            "tail": (1, torch.float32),
        }[tap.kind]
        return Form((seq, micro, width), 0, dtype, is_gathered=True)


Messages = Mapping[tuple[Seat, Seat], tuple[Slice, ...]]
"""From (sender in a teacher replica, receiver in a student replica) to what it is sent for a micro-batch."""


def plan_messages(
    wanted: Sequence[Sequence[tuple[Tap, int]]], forms: Forms, teacher_tensor: int, student_tensor: int
) -> Messages:
    """All messages of a micro-batch.

    Args:
        wanted: for each pipeline stage of the student, the taps it needs and the teacher's stage that has each.
        forms: of the taps.
        teacher_tensor, student_tensor: tensor-parallel sizes.
    """
    found: dict[tuple[Seat, Seat], list[Slice]] = {}
    for stage, taps in enumerate(wanted):
        for tap, source in taps:
            form = forms.of(tap)
            length = form.size[form.dim]
            grid = form.grid or length
            for a in range(teacher_tensor):
                for b in range(student_tensor):
                    start = max(part(length, teacher_tensor, a)[0], part(grid, student_tensor, b)[0])
                    stop = min(part(length, teacher_tensor, a)[1], part(grid, student_tensor, b)[1])
                    if start < stop:
                        pair = Seat(source, a), Seat(stage, b)
                        found.setdefault(pair, []).append(Slice(tap, form, start, stop))
    return {pair: tuple(slices) for pair, slices in found.items()}


def part(length: int, parts: int, which: int) -> tuple[int, int]:
    """Start and end of one of `parts` equal parts."""
    return length * which // parts, length * (which + 1) // parts


def job_rank(layout: Layout, seat: Seat, replica: int, first: int) -> int:
    """A rank's number in the job, for a role whose ranks begin at `first`; tensor first, then data, then pipeline."""
    return first + (seat.stage * layout.data + replica) * layout.tensor + seat.tensor


def seats(layout: Layout) -> list[Seat]:
    """All ranks of a replica."""
    return [Seat(stage, tensor) for stage in range(layout.pipeline) for tensor in range(layout.tensor)]


@dataclass(frozen=True)
class Pairing:
    """Which replicas of the teacher serve which of the student's; one of the numbers divides the other."""

    teacher: int
    student: int
    """Data-parallel sizes."""

    @property
    def num_groups(self) -> int:
        """Sets of replicas that have to do with each other."""
        return min(self.teacher, self.student)

    def group_of_student(self, replica: int) -> int:
        """The set that a student replica is in."""
        return replica * self.num_groups // self.student

    def group_of_teacher(self, replica: int) -> int:
        """The set that a teacher replica is in."""
        return replica * self.num_groups // self.teacher

    def server(self, replica: int, number: int) -> int:
        """The teacher replica that serves micro-batch `number` of a student replica: they take turns if there are
        several."""
        turns = self.teacher // self.num_groups
        return self.group_of_student(replica) * turns + number % turns

    def served(self, teacher_replica: int) -> list[int]:
        """The student replicas that a teacher replica serves."""
        group = self.group_of_teacher(teacher_replica)
        return [r for r in range(self.student) if self.group_of_student(r) == group]

    def servers(self, replica: int) -> list[int]:
        """The teacher replicas that serve a student replica, in turn."""
        return [self.server(replica, turn) for turn in range(self.teacher // self.num_groups)]
