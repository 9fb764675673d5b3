"""All ways to divide the ranks, the quickest first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from megatron_distill.config.error import ConfigError
from megatron_distill.config.run import Layout

from .job import Job, Model
from .memory import student_memory, teacher_memory
from .split import Split
from .timing import bridge_seconds, seed_seconds, student_seconds, teacher_seconds

USABLE = 0.9
"""Of the memory: the rest is for the CUDA context, NCCL and fragments."""
ENOUGH_TOKENS = 16384
"""A micro-batch need not be larger: kernels gain nothing."""

Grid = tuple[int, int, int]
"""TP, PP and DP sizes."""


def find_splits(job: Job) -> list[Split]:
    """Every way to use exactly the job's GPUs, each with its best micro-batch size: those that fit first, the quickest
    of them first.

    Raises:
        ConfigError: there is none, or none that fits.
    """
    best: dict[tuple[str, Grid, Grid | None], Split] = {}
    for micro in _micro_batch_sizes(job):
        for split in _splits(job, micro):
            key = (split.placement, _grid(split.student), _grid(split.teacher) if split.teacher else None)
            if key not in best or _rank(split) < _rank(best[key]):
                best[key] = split
    if not best:
        raise ConfigError(
            f"{job.gpus} GPUs cannot be divided: data-parallel sizes must divide --global-batch-size "
            f"{job.global_batch_size} over the micro-batch size and each other, TP must divide heads and vocabulary, "
            "and PP the layers; give another number of GPUs or batch size"
        )
    splits = sorted(best.values(), key=_rank)
    if not splits[0].fits:
        least = min(splits, key=lambda split: split.memory)
        raise ConfigError(
            f"no split of {job.gpus} GPUs fits {job.device.name}: the smallest needs {least.memory / 2**30:.1f} GiB a "
            f"rank and {least.limit / 2**30:.1f} GiB can be used; give more GPUs, a larger device"
            + ("" if job.recompute else ", or --recompute-granularity full")
        )
    return splits


def shown(splits: list[Split], top: int) -> list[Split]:
    """The first `top`, and the first one whose teacher has ranks of its own if it is not among them."""
    separate = next((split for split in splits[top:] if split.teacher), None)
    first = splits[:top]
    return first if separate is None or any(split.teacher for split in first) else [*first, separate]


def _rank(split: Split) -> tuple[bool, float, int, int, float]:
    """The key that sorts: what fits, quick, simple, and with a micro-batch that keeps kernels busy."""
    parallel = split.student.tensor * split.student.pipeline
    return not split.fits, split.hours, parallel, -split.micro_batch_size if split.fits else 0, split.memory


def _splits(job: Job, micro: int) -> Iterator[Split]:
    students = _grids(job, job.student, _student_stages(job), micro)
    if job.teacher is None:
        yield from (_alone(job, s, micro) for s in students if _size(s) == job.gpus)
        return
    teachers = _grids(job, job.teacher, {job.teacher.num_layers}, micro)
    if job.placement != "separate":
        both = {s for s in students if s[1] == 1 and _size(s) == job.gpus} & set(teachers)
        yield from (_alone(job, s, micro) for s in sorted(both))
    if job.placement == "colocated":
        return
    by_size = defaultdict(list)
    for grid in teachers:
        by_size[_size(grid)].append(grid)
    for s in students:
        for t in by_size[job.gpus - _size(s)]:
            if max(s[2], t[2]) % min(s[2], t[2]) == 0 and _within_nodes(job, t[0], start=_size(s)):
                yield _separate(job, s, t, micro)


def _alone(job: Job, grid: Grid, micro: int) -> Split:
    """Without a teacher, or with one on the same ranks."""
    layout = _layout(job, grid, micro)
    student = student_seconds(job, layout, micro)
    teacher = teacher_seconds(job, layout, micro) if job.teacher else 0.0
    seed = seed_seconds(job, layout, micro)
    return Split(
        placement="colocated" if job.teacher else "none",
        student=layout,
        teacher=None,
        micro_batch_size=micro,
        student_seconds=student,
        teacher_seconds=teacher,
        step_seconds=student + teacher,
        seed_step_seconds=seed,
        hours=_hours(job, student + teacher, seed),
        student_memory=student_memory(job, layout, micro, colocated=job.teacher is not None),
        teacher_memory=None,
        limit=USABLE * job.device.memory,
    )


def _separate(job: Job, student_grid: Grid, teacher_grid: Grid, micro: int) -> Split:
    ours, theirs = _layout(job, student_grid, micro), _layout(job, teacher_grid, micro)
    student, teacher = student_seconds(job, ours, micro), teacher_seconds(job, theirs, micro)
    step, seed = max(student, teacher, bridge_seconds(job, ours, theirs)), seed_seconds(job, ours, micro)
    return Split(
        placement="separate",
        student=ours,
        teacher=theirs,
        micro_batch_size=micro,
        student_seconds=student,
        teacher_seconds=teacher,
        step_seconds=step,
        seed_step_seconds=seed,
        hours=_hours(job, step, seed),
        student_memory=student_memory(job, ours, micro, colocated=False),
        teacher_memory=teacher_memory(job, theirs, micro),
        limit=USABLE * job.device.memory,
    )


def _hours(job: Job, step: float, seed_step: float) -> float:
    return ((job.total_steps - job.seed_steps) * step + job.seed_steps * seed_step) / 3600


def _micro_batch_sizes(job: Job) -> list[int]:
    if job.micro_batch_size is not None:
        return [job.micro_batch_size]
    most = max(1, ENOUGH_TOKENS // job.seq_length)
    return [size for size in (2**i for i in range(most.bit_length())) if job.global_batch_size % size == 0]


def _student_stages(job: Job) -> set[int]:
    """Layer counts that pipeline stages must share evenly."""
    return {job.kept_layers, job.student.num_layers} if job.has_seed_phase else {job.kept_layers}


def _grids(job: Job, model: Model, layer_counts: set[int], micro: int) -> list[Grid]:
    """What a model allows on at most all GPUs."""
    shape, replicas = model.shape, job.global_batch_size // micro
    units = (shape.num_attention_heads, shape.num_query_groups, shape.padded_vocab_size, shape.ffn_hidden_size)
    found: list[Grid] = []
    for tp in range(1, min(job.gpus, job.gpus_per_node) + 1):
        uneven = any(unit % tp for unit in units) or (tp > 1 and job.seq_length % tp)
        if uneven or job.global_batch_size % micro or not _within_nodes(job, tp, start=0):
            continue
        most_stages = min(job.gpus // tp, *layer_counts)
        for pp in (p for p in range(1, most_stages + 1) if not any(count % p for count in layer_counts)):
            found += [(tp, pp, dp) for dp in _divisors(replicas) if tp * pp * dp <= job.gpus]
    return found


@cache
def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def _within_nodes(job: Job, tensor: int, start: int) -> bool:
    """Whether groups of `tensor` ranks, from rank `start` on, lie within nodes."""
    return job.gpus <= job.gpus_per_node or (job.gpus_per_node % tensor == 0 and start % tensor == 0)


def _layout(job: Job, grid: Grid, micro: int) -> Layout:
    tensor, pipeline, data = grid
    count = job.global_batch_size // (micro * data)
    return Layout(tensor=tensor, pipeline=pipeline, data=data, num_microbatches=count)


def _grid(layout: Layout) -> Grid:
    return layout.tensor, layout.pipeline, layout.data


def _size(grid: Grid) -> int:
    return grid[0] * grid[1] * grid[2]
