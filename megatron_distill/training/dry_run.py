"""`--dry-run`: what a run would do, where, and what it costs; needs no torch."""

from __future__ import annotations

from megatron_distill.config.flags import to_flags

from .plan import RunPlan

_BYTES = {"weight": 2, "gradient": 4, "master": 4, "moment": 4}


def describe(plan: RunPlan) -> str:
    """The resolved run as text: flags, model, schedule, rank map, memory and FLOPs."""
    true, paper = plan.training_flops()
    shape, lay = plan.shape, plan.layout
    lines = [
        "flags that differ from their defaults:",
        *(f"  {flag}" for flag in to_flags(plan.config)),
        f"model: {shape.num_parameters(len(plan.initial_layers)):,} parameters, {len(plan.initial_layers)} layers x "
        f"{shape.hidden_size}, {shape.num_attention_heads} heads, {shape.padded_vocab_size:,} vocabulary rows",
        f"schedule: {plan.total_iters:,} steps of {plan.tokens_per_iter:,} tokens "
        f"({plan.total_iters * plan.tokens_per_iter:,}), warm-up {plan.warmup_iters:,}",
        *_removals(plan),
        f"start: {_start(plan)}",
        *_rank_map(plan),
        f"memory a rank, at most: {_memory(plan) / 2**30:.2f} GiB (weights, gradients, optimizer state; without "
        "activations)",
        f"FLOPs: {true:.4g} (attention and seed phase included), {paper:.4g} as the papers count",
        f"micro-batches a step and data-parallel rank: {lay.num_microbatches}",
    ]
    return "\n".join(lines)


def _removals(plan: RunPlan) -> list[str]:
    if plan.removal is None:
        return []
    final = plan.layers_at(plan.total_iters)
    steps = [f"  before step {at + 1:,}: layers {', '.join(map(str, gone))}" for at, gone in _steps(plan)]
    size = plan.shape.num_parameters(len(final))
    return ["layers leave:", *steps, f"  {len(final)} layers stay: {', '.join(map(str, final))} ({size:,} parameters)"]


def _steps(plan: RunPlan) -> tuple[tuple[int, tuple[int, ...]], ...]:
    assert plan.removal is not None
    return plan.removal.removal_iterations()


def _start(plan: RunPlan) -> str:
    if plan.resume_from:
        return f"resume {plan.resume_from} at step {plan.start:,}"
    return f"weights of {plan.load_from}" if plan.load_from else "fresh weights"


def _rank_map(plan: RunPlan) -> list[str]:
    lay = plan.layout
    lines = [f"student: {lay.world_size} ranks = TP {lay.tensor} x PP {lay.pipeline} x DP {lay.data}"]
    for pp in range(lay.pipeline):
        for dp in range(min(lay.data, 4)):
            first = (pp * lay.data + dp) * lay.tensor
            ranks = f"{first}-{first + lay.tensor - 1}" if lay.tensor > 1 else f"{first}"
            lines.append(f"  stage {pp}, replica {dp}: ranks {ranks}")
        if lay.data > 4:
            lines.append(f"  stage {pp}: and {lay.data - 4} replicas more")
    return lines


def _memory(plan: RunPlan) -> float:
    """Bytes of the fullest rank: the first or last stage, which holds the embedding table."""
    shape, lay = plan.shape, plan.layout
    table = shape.padded_vocab_size * shape.hidden_size
    layers = shape.num_parameters(len(plan.initial_layers)) - table
    held = (layers / lay.pipeline + table) / lay.tensor
    moments = 1 if plan.config.optimizer.optimizer == "lion" else 2
    sharded = (_BYTES["master"] + moments * _BYTES["moment"]) / lay.data
    return held * (_BYTES["weight"] + _BYTES["gradient"] + sharded)
