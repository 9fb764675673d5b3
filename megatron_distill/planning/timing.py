"""Seconds that one optimizer step takes each role.

    stage     FLOPs of the fullest stage for a micro-batch / (TP x peak x MFU), and its tensor-parallel reductions
    student   (micro-batches + PP - 1) stages (1F1B with its bubble of (PP - 1) / (micro-batches + PP - 1)), and the
              data-parallel reduction of fp32 gradients and gathering of weights
    teacher   one stage a micro-batch: it is frozen and runs ahead over the end of a step, so it has no bubble
    bridge    bytes of the step / bandwidth of as many links as the smaller role has data- and tensor-parallel ranks

A step with a teacher on its own ranks takes as long as the slowest of the three, with a colocated one the sum of
student and teacher. An all-reduce over n ranks moves 2 (n - 1) / n of its bytes through each. No communication is
taken to overlap with computation but that of the bridge, and that of the pipeline costs nothing.
"""

from __future__ import annotations

from megatron_distill.config.distillation_cost import ByStage, method_flops_by_stage
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout

from .job import Job
from .memory import bridge_bytes, parameters_of_stage


def flops_by_stage(job: Job) -> tuple[ByStage, ByStage]:
    """FLOPs a token of a distillation step: the student's ranks, the teacher's."""
    teacher = job.teacher
    return method_flops_by_stage(
        job.student.shape,
        job.kept_layers,
        teacher.shape if teacher else None,
        teacher.num_layers if teacher else 0,
        job.seq_length,
        job.losses,
        wire=job.wire,
    )


def seed_flops_by_stage(job: Job) -> ByStage:
    """FLOPs a token of a step of the seed phase: all layers, no teacher."""
    return method_flops_by_stage(job.student.shape, job.student.num_layers, None, 0, job.seq_length, ())[0]


def student_seconds(job: Job, layout: Layout, micro: int) -> float:
    """A distillation step of the student, if it never waits."""
    return _trained(job, flops_by_stage(job)[0], job.kept_layers, layout, micro)


def seed_seconds(job: Job, layout: Layout, micro: int) -> float:
    """A step of the seed phase."""
    return _trained(job, seed_flops_by_stage(job), job.student.num_layers, layout, micro)


def teacher_seconds(job: Job, layout: Layout, micro: int) -> float:
    """What the teacher needs for the micro-batches of a step."""
    assert job.teacher is not None
    flops, layers = flops_by_stage(job)[1], job.teacher.num_layers
    stage = _computing(job, flops.largest(layout.pipeline), layout, micro)
    stage += _reductions(job, job.teacher.shape, layers / layout.pipeline, layout, micro)
    return layout.num_microbatches * stage


def bridge_seconds(job: Job, student: Layout, teacher: Layout) -> float:
    """What the bridge needs for the bytes of a step."""
    links = min(student.tensor * student.data, teacher.tensor * teacher.data)
    bandwidth = job.device.link if job.gpus <= job.gpus_per_node else job.device.network
    return job.tokens_per_step * bridge_bytes(job).total / (links * bandwidth)


def _trained(job: Job, flops: ByStage, num_layers: int, layout: Layout, micro: int) -> float:
    shape = job.student.shape
    again = flops.layers / 3 if job.recompute else 0.0
    stage = _computing(job, flops.largest(layout.pipeline) + again / layout.pipeline, layout, micro)
    passes = 3 if job.recompute else 2
    stage += passes * _reductions(job, shape, num_layers / layout.pipeline, layout, micro)
    held = parameters_of_stage(shape, job.kept_layers, layout)
    is_near = job.gpus <= job.gpus_per_node or layout.tensor * layout.data <= job.gpus_per_node
    bandwidth = job.device.link if is_near else job.device.network
    replicas = (4 + job.device.element_bytes) * held * (layout.data - 1) / layout.data / bandwidth
    return (layout.num_microbatches + layout.pipeline - 1) * stage + replicas


def _computing(job: Job, flops: float, layout: Layout, micro: int) -> float:
    return flops * micro * job.seq_length / (layout.tensor * job.device.peak_flops * job.mfu)


def _reductions(job: Job, shape: ModelShape, layers: float, layout: Layout, micro: int) -> float:
    """Tensor-parallel all-reduces of one pass in one direction: one a layer of PaLM, two of another family's."""
    each = (1 if shape.block is None else 2) * layers
    moved = 2 * (layout.tensor - 1) / layout.tensor * micro * job.seq_length * shape.hidden_size
    return each * moved * job.device.element_bytes / job.device.link
