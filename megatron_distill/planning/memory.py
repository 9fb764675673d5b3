"""Bytes that the fullest rank of a role needs.

With e bytes an element (2 in bf16, 4 on a CPU), N the parameters of a stage over its tensor-parallel ranks t:

    weights       e N
    gradients     4 N, of what trains
    optimizer     (4 for the master weight of bf16 + 4 for Lion's moment or 8 for AdamW's two) N / DP
    activations   e x tokens of a micro-batch x layers of the stage x micro-batches in flight x a, where
                  a = 2 d for each norm (its input and output; over t with sequence parallelism, which is assumed), plus
                  over t: q, k, v and q, k once more after rotation, the attention's output (PaLM: twice, it is joined
                  with the feed-forward's), q and k once more in a norm over the full width or twice in RMSNorm, and
                  4 f of a gated feed-forward, 2 f of a plain one, f with ReLU;
                  with recomputation d for each layer, and a once
    loss          fused with a teacher: two chunks of 48 MiB and the hidden states' gradient; else e + 8 bytes for each
                  entry of the logits; relations and scores: four blocks of 128 queries in fp32, all heads
    teacher       colocated: its weights and one layer's activations; separate: the copy of its output matrix or
                  embedding table that the student's last or first stage holds
    bridge        four micro-batches of what crosses it, which the teacher may be ahead; colocated: one

1F1B keeps min(PP, micro-batches) micro-batches in flight on the first stage and one on the last; both are looked at.
A teacher keeps no activations beyond one layer's.
"""

from __future__ import annotations

from typing import NamedTuple

from megatron_distill.config.distillation_cost import ByStage, bridge_bytes_per_token, loss_costs
from megatron_distill.config.model import ModelShape
from megatron_distill.config.parameter_bytes import parameter_bytes, parameters_of_stage
from megatron_distill.config.run import Layout

from .job import Job

MICRO_BATCHES_AHEAD = 4
CHUNK_BYTES = 48 * 2**20
QUERY_BLOCK = 128


class Memory(NamedTuple):
    """Bytes of one rank by what they are for."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    loss: float = 0.0
    teacher: float = 0.0
    bridge: float = 0.0

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(self)


def student_memory(job: Job, layout: Layout, micro: int, *, colocated: bool) -> Memory:
    """Of the student's fullest rank, in the fuller of its phases: with all layers, or with the teacher."""
    distilling = [
        _student_stage(job, layout, micro, stage, job.kept_layers, job.losses, colocated)
        for stage in {0, layout.pipeline - 1}
    ]
    seed = [
        _student_stage(job, layout, micro, stage, job.student.num_layers, (), colocated)
        for stage in {0, layout.pipeline - 1}
        if job.has_seed_phase
    ]
    return max([*distilling, *seed], key=lambda memory: memory.total)


def teacher_memory(job: Job, layout: Layout, micro: int) -> Memory:
    """Of the fullest rank of a teacher that has ranks of its own: the stage with its last layer."""
    assert job.teacher is not None
    shape, size, tokens = job.teacher.shape, job.device.element_bytes, micro * job.seq_length
    logits = tokens * shape.padded_vocab_size * size / layout.tensor if job.wire != "hidden" else 0.0
    ahead = MICRO_BATCHES_AHEAD * tokens * bridge_bytes(job).largest(layout.pipeline) / layout.tensor
    return Memory(
        weights=size * parameters_of_stage(shape, job.teacher.num_layers, layout),
        activations=size * tokens * layer_activations(shape, layout.tensor),
        loss=logits,
        bridge=ahead,
    )


def bridge_bytes(job: Job) -> ByStage:
    """Bytes a token that the teacher sends."""
    assert job.teacher is not None
    return bridge_bytes_per_token(
        job.teacher.shape,
        job.kept_layers,
        job.losses,
        wire=job.wire,
        topk=job.topk,
        element_bytes=job.device.element_bytes,
    )


def layer_activations(shape: ModelShape, tensor: int) -> float:
    """Elements a token that one layer keeps for the backward pass on each of `tensor` ranks."""
    block = shape.block
    queries, groups = shape.num_attention_heads * shape.head_dim, shape.num_query_groups * shape.head_dim
    attention = queries + 2 * groups + (queries + groups) + queries
    if block is None:
        attention += queries + (2 * queries if shape.qk_layernorm == "full" else 0)
        return (2 * shape.hidden_size + attention + 4 * shape.ffn_hidden_size) / tensor
    attention += 2 * (queries + groups) if block.qk_norm else 0
    feed_forward = (4 if block.gated else 1 if block.activation == "relu" else 2) * shape.ffn_hidden_size
    return (4 * shape.hidden_size + attention + feed_forward) / tensor


def _student_stage(
    job: Job, layout: Layout, micro: int, stage: int, num_layers: int, losses: tuple[str, ...], colocated: bool
) -> Memory:
    shape, size, tokens = job.student.shape, job.device.element_bytes, micro * job.seq_length
    held = parameters_of_stage(shape, num_layers, layout)
    trained = parameters_of_stage(shape, job.kept_layers, layout)
    each = parameter_bytes(size, job.optimizer)
    return Memory(
        weights=each.weight * held,
        gradients=each.gradient * trained,
        optimizer=each.optimizer * trained / layout.data,
        activations=_activations(job, layout, tokens, stage, num_layers),
        loss=_loss(job, layout, tokens, stage, losses),
        teacher=_teacher_held(job, layout, tokens, stage, colocated),
        bridge=_received(job, layout, tokens, stage, colocated) if losses else 0.0,
    )


def _activations(job: Job, layout: Layout, tokens: int, stage: int, num_layers: int) -> float:
    shape = job.student.shape
    in_flight = 1 if stage == layout.pipeline - 1 else min(layout.pipeline, layout.num_microbatches)
    each, layers = layer_activations(shape, layout.tensor), num_layers / layout.pipeline
    if not job.recompute:
        return job.device.element_bytes * tokens * layers * in_flight * each
    return job.device.element_bytes * tokens * (layers * in_flight * shape.hidden_size / layout.tensor + each)


def _loss(job: Job, layout: Layout, tokens: int, stage: int, losses: tuple[str, ...]) -> float:
    shape, size, costs = job.student.shape, job.device.element_bytes, loss_costs(losses)
    is_last = stage == layout.pipeline - 1
    logits = 0.0
    if is_last and any(cost.on_logits for cost in costs):
        logits = 2 * CHUNK_BYTES + size * tokens * shape.hidden_size
    elif is_last:
        logits = (size + 8) * tokens * shape.padded_vocab_size / layout.tensor
    if any(cost.layer_relations or (is_last and cost.last_relations) for cost in costs):
        logits += 4 * 4 * QUERY_BLOCK * tokens * shape.num_attention_heads / layout.tensor
    return logits


def _teacher_held(job: Job, layout: Layout, tokens: int, stage: int, colocated: bool) -> float:
    if job.teacher is None:
        return 0.0
    shape, size, costs = job.teacher.shape, job.device.element_bytes, loss_costs(job.losses)
    if colocated:
        weights = parameters_of_stage(shape, job.teacher.num_layers, layout)
        return size * (weights + tokens * layer_activations(shape, layout.tensor))
    matrix = stage == layout.pipeline - 1 and job.wire == "hidden" and any(cost.on_logits for cost in costs)
    table = stage == 0 and any(cost.on_table for cost in costs)
    copies = max(matrix, table) if shape.tied else matrix + table
    return copies * size * shape.padded_vocab_size * shape.hidden_size / layout.tensor


def _received(job: Job, layout: Layout, tokens: int, stage: int, colocated: bool) -> float:
    amount = bridge_bytes(job)
    each = amount.layers / layout.pipeline + (amount.last_stage if stage == layout.pipeline - 1 else 0.0)
    return (1 if colocated else MICRO_BATCHES_AHEAD) * tokens * each / layout.tensor
