"""What losses need of a teacher: from taps of the student to the teacher's, and on which pipeline stages these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.base import Loss
from megatron_distill.models.build import stage_layers
from megatron_distill.tap import Tap

TABLES = ("embedding", "output_weight")
"""What does not change while a frozen teacher runs, so it crosses the bridge once."""
_LOGITS = {
    "hidden": ("final_hidden",),
    "logits": ("logits",),
    "topk": ("top_log_probs", "top_indices", "tail"),
}
"""What stands for the teacher's logits on each wire; with hidden states goes its output matrix, once."""


@dataclass(frozen=True)
class Needs:
    """The losses of a run, a student of a depth and a teacher of a depth."""

    losses: tuple[Loss, ...]
    wire: str
    student_depth: int
    """Layers of the model that the student was, before any left."""
    teacher_depth: int
    teacher_layers: tuple[int, ...]
    """Layers that the teacher has, as numbers in the model it was."""

    def layer(self, index: int) -> int:
        """The teacher's layer that a student's is compared with: the one it came from, or, where teacher and student
        are of different depths, the one as far up (TinyBERT, arXiv:1909.10351, section 3: a uniform mapping).

        Raises:
            ConfigError: the teacher has no such layer.
        """
        if self.student_depth != self.teacher_depth:
            reached = -(-(index + 1) * len(self.teacher_layers) // self.student_depth)  # rounded up: at least one
            return self.teacher_layers[reached - 1]
        if index not in self.teacher_layers:
            raise ConfigError(f"the teacher has no layer {index} to compare the student's with; give one that has")
        return index

    def of_student(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """All that the losses tap of a student with `layers`."""
        return tuple(dict.fromkeys(tap for loss in self.losses for tap in loss.taps(layers)))

    def of_teacher(self, tap: Tap) -> tuple[Tap, ...]:
        """What of the teacher goes with a tap of the student."""
        if tap.kind == "final_hidden":
            return tuple(Tap(kind) for kind in _LOGITS[self.wire])
        if tap.kind == "output_weight":
            return (tap,) if self.wire == "hidden" else ()
        return (tap,) if tap.layer is None else (Tap(tap.kind, self.layer(tap.layer)),)

    def by_stage(
        self, layers: Sequence[int], student_stages: int, teacher_stages: int
    ) -> tuple[tuple[tuple[Tap, int], ...], ...]:
        """For each stage of a student with `layers`: the teacher's taps it needs, and the teacher's stage of each."""
        found: list[dict[Tap, int]] = [{} for _ in range(student_stages)]
        for tap in self.of_student(layers):
            here = found[stage_of(tap, layers, student_stages)]
            here |= {other: stage_of(other, self.teacher_layers, teacher_stages) for other in self.of_teacher(tap)}
        return tuple(tuple(taps.items()) for taps in found)


def stage_of(tap: Tap, layers: Sequence[int], stages: int) -> int:
    """The pipeline stage of a model of `layers` that has a tap."""
    if tap.layer is None:
        return 0 if tap.kind == "embedding" else stages - 1
    return next(stage for stage in range(stages) if tap.layer in stage_layers(tuple(layers), stages, stage))
