"""A plan as text, as flags of pretrain_distill.py, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from megatron_distill.config.cost import paper_flops
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout

from .job import Job
from .memory import MICRO_BATCHES_AHEAD, Memory, bridge_bytes
from .papers import PUBLISHED
from .search import USABLE
from .split import Split
from .timing import flops_by_stage, seed_flops_by_stage

GIB = 2**30


def describe(job: Job, splits: list[Split]) -> str:
    """Model, cost, a table of splits with the best first, its ranks, memory and flags, and what was assumed."""
    best, cost = splits[0], flops_of_run(job)
    return "\n".join(
        [
            *_models(job),
            f"run: {job.total_steps:,} steps of {job.tokens_per_step:,} tokens, {job.seed_steps:,} of them seed phase",
            f"FLOPs: {cost['true']:.4g} (attention, losses and seed phase included), {cost['paper']:.4g} as the papers "
            "count",
            f"FLOPs a token after it: {cost['student_per_token']:.4g} on the student's ranks, "
            f"{cost['teacher_per_token']:.4g} on the teacher's",
            "",
            _table(splits),
            "",
            "best:",
            *_ranks(best),
            *_memory_lines(best),
            "flags of pretrain_distill.py:",
            *(f"  {flag}" for flag in recommended_flags(job, best)),
            "assumed:",
            *(f"  {line}" for line in _assumptions(job)),
        ]
    )


def as_json(job: Job, splits: list[Split]) -> dict[str, Any]:
    """The same for programs: bytes, seconds, hours and FLOPs."""
    return {
        "flops": flops_of_run(job),
        "bridge_bytes_per_token": bridge_bytes(job).total if job.teacher else 0.0,
        "splits": [_split_json(split) for split in splits],
        "flags": recommended_flags(job, splits[0]),
        "assumptions": {"mfu": job.mfu, "usable_memory": USABLE, **dataclasses.asdict(job.device)},
    }


def flops_of_run(job: Job) -> dict[str, float]:
    """FLOPs of all steps: true, of each role in a token, and as the papers count (parameters, after the seed phase)."""
    student, teacher = (part.total for part in flops_by_stage(job))
    steps, seed_steps = job.total_steps - job.seed_steps, job.seed_steps
    seed = seed_flops_by_stage(job).total
    theirs = job.teacher.shape.num_parameters(job.teacher.num_layers) if job.teacher else 0
    ours = job.student.shape.num_parameters(job.kept_layers)
    return {
        "true": job.tokens_per_step * (steps * (student + teacher) + seed_steps * seed),
        "paper": paper_flops(ours, job.tokens_per_step * steps, theirs),
        "student_per_token": student,
        "teacher_per_token": teacher,
    }


def recommended_flags(job: Job, split: Split) -> list[str]:
    """How pretrain_distill.py is told this split, one flag an item."""
    flags = _layout_flags("", split.student)
    if split.student.tensor > 1:
        flags.append("--sequence-parallel")
    flags.append(f"--micro-batch-size {split.micro_batch_size}")
    if job.recompute:
        flags.append("--recompute-granularity full")
    flags.append(f"--teacher-placement {split.placement}")
    if split.teacher is not None:
        flags += _layout_flags("teacher-", split.teacher)
        flags.append(f"--teacher-data-parallel-size {split.teacher.data}")
        flags.append(f"--bridge-wire {job.wire}")
        if job.wire == "topk":
            flags.append(f"--bridge-top-k {job.topk}")
    if job.losses:
        flags.append(f"--loss {' '.join(job.losses)}")
    return flags


def describe_papers() -> str:
    """The eight published figures and ours."""
    head = ("version", "model", "method", "published", "counted", "")
    rows = [
        (
            figure.version,
            figure.model,
            "distilled" if figure.distilled else "teacher-free",
            f"{figure.printed}e18",
            f"{figure.counted}e18",
            "equal" if figure.counted == figure.printed else "NOT EQUAL",
        )
        for figure in PUBLISHED
    ]
    return _aligned([head, *rows])


def _layout_flags(prefix: str, layout: Layout) -> list[str]:
    return [
        f"--{prefix}tensor-model-parallel-size {layout.tensor}",
        f"--{prefix}pipeline-model-parallel-size {layout.pipeline}",
    ]


def _models(job: Job) -> list[str]:
    student, kept = job.student, job.kept_layers
    lines = [f"student: {student.name}, {kept} of {student.num_layers} layers, {_size(student.shape, kept)} parameters"]
    if job.teacher is not None:
        teacher = job.teacher
        size = _size(teacher.shape, teacher.num_layers)
        lines.append(f"teacher: {teacher.name}, {teacher.num_layers} layers, {size} parameters")
        lines.append(f"losses: cross-entropy, {', '.join(job.losses)}")
    return lines


def _size(shape: ModelShape, num_layers: int) -> str:
    return f"{shape.num_parameters(num_layers):,}"


def _table(splits: list[Split]) -> str:
    head = ("teacher is", "student", "teacher", "micro-batch", "step s", "student waits", "GiB a rank", "hours", "")
    return _aligned([head, *(_row(split) for split in splits)])


def _row(split: Split) -> tuple[str, ...]:
    theirs = split.teacher_memory
    memory = f"{split.student_memory.total / GIB:.1f}" + (f" / {theirs.total / GIB:.1f}" if theirs else "")
    return (
        split.placement,
        _shape_of(split.student),
        _shape_of(split.teacher) if split.teacher else "-",
        str(split.micro_batch_size),
        f"{split.step_seconds:.3g}",
        f"{split.wait_share:.1%}" if split.teacher else "-",
        memory,
        f"{split.hours:,.2f}",
        "fits" if split.fits else f"only {split.limit / GIB:.1f} GiB",
    )


def _shape_of(layout: Layout) -> str:
    return f"{layout.world_size} = TP {layout.tensor} x PP {layout.pipeline} x DP {layout.data}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _ranks(split: Split) -> list[str]:
    ours = split.student.world_size
    lines = [f"  ranks 0-{ours - 1}: student" + (" and teacher" if split.placement == "colocated" else "")]
    if split.teacher is not None:
        idle = 1 - split.teacher_seconds / split.step_seconds
        lines.append(f"  ranks {ours}-{split.gpus - 1}: teacher, idle {idle:.1%} of a step")
    return lines


def _memory_lines(split: Split) -> list[str]:
    lines = [f"  GiB of a student rank in its fuller phase: {_parts(split.student_memory)}"]
    if split.teacher_memory is not None:
        lines.append(f"  GiB of a teacher rank: {_parts(split.teacher_memory)}")
    return lines


def _parts(memory: Memory) -> str:
    parts = [f"{name} {size / GIB:.2f}" for name, size in memory._asdict().items() if size]
    return f"{memory.total / GIB:.2f} = {', '.join(parts)}"


def _assumptions(job: Job) -> list[str]:
    device = job.device
    lines = [
        f"{device.name}: {device.peak_flops / 1e12:g} TFLOP/s, of which products reach {job.mfu:.0%} (--mfu); "
        f"{device.link / 1e9:g} GB/s within a node of {job.gpus_per_node}, {device.network / 1e9:g} GB/s beyond",
        f"{USABLE:.0%} of {device.memory / GIB:g} GiB can be used; activations are an estimate",
        "only the bridge overlaps with computation; a frozen teacher has no pipeline bubble",
    ]
    if job.has_seed_phase:
        lines.append("all layers leave at once at the end of the seed phase, in which the teacher rests")
    if job.teacher is not None:
        lines.append(
            f"a separate teacher sends {bridge_bytes(job).total:,.0f} bytes a token and is at most "
            f"{MICRO_BATCHES_AHEAD} micro-batches ahead"
        )
    return lines


def _split_json(split: Split) -> dict[str, Any]:
    return dataclasses.asdict(split) | {
        "student_memory": split.student_memory._asdict(),
        "teacher_memory": split.teacher_memory._asdict() if split.teacher_memory else None,
        "wait_share": split.wait_share,
        "fits": split.fits,
    }
