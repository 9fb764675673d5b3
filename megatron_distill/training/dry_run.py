"""`--dry-run`: what a run would do, where, and what it costs; needs torch only to say what crosses to a student."""

from __future__ import annotations

from megatron_distill.config.flags import to_flags
from megatron_distill.config.parameter_bytes import element_bytes, parameter_bytes, parameters_of_stage
from megatron_distill.config.run import Layout

from .plan import RunPlan, TeacherPlan


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
        *_rank_map("student", lay, 0),
        *_teacher(plan),
        f"memory a rank, at most: {_memory(plan) / 2**30:.2f} GiB (weights, gradients, optimizer state; without "
        "activations)",
        f"FLOPs: {true:.4g} (attention and seed phase included), {paper:.4g} as the papers count",
        *_teacher_flops(plan, true),
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


def _rank_map(role: str, lay: Layout, first_rank: int) -> list[str]:
    lines = [f"{role}: {lay.world_size} ranks = TP {lay.tensor} x PP {lay.pipeline} x DP {lay.data}"]
    for pp in range(lay.pipeline):
        for dp in range(min(lay.data, 4)):
            first = first_rank + (pp * lay.data + dp) * lay.tensor
            ranks = f"{first}-{first + lay.tensor - 1}" if lay.tensor > 1 else f"{first}"
            lines.append(f"  stage {pp}, replica {dp}: ranks {ranks}")
        if lay.data > 4:
            lines.append(f"  stage {pp}: and {lay.data - 4} replicas more")
    return lines


def _teacher(plan: RunPlan) -> list[str]:
    """Where the teacher is, what is learned from it, and what crosses to the student."""
    teacher, chosen = plan.teacher, plan.config.distillation
    if teacher is None:
        return []
    lines = ["teacher: in the student's processes"]
    if teacher.separate:
        lines = _rank_map("teacher", teacher.layout, plan.layout.world_size)
    lines.append(f"  {teacher.checkpoint}: {teacher.description}, {_weights(plan, teacher) / 2**30:.2f} GiB a rank")
    scaled = "each brought to one size" if chosen.normalise_losses else "not normalised"
    lines.append(f"losses from step {plan.distils_from + 1:,} on: {chosen.lm_weight:g} x cross-entropy; {scaled}:")
    for spec in chosen.losses():
        options = ", ".join(f"{name} {value}" for name, value in spec.options.items())
        lines.append(f"  {spec.weight:g} x {spec.name}" + (f" ({options})" if options else ""))
    return [*lines, *_bridge(plan, teacher)]


def _bridge(plan: RunPlan, teacher: TeacherPlan) -> list[str]:
    try:
        from .teaching import build_terms, bytes_per_token
    except ImportError:
        return ["bridge: install torch and megatron-core to see what crosses it, and whether the losses fit"]
    terms = build_terms(plan)
    if not teacher.separate:
        return []
    config = plan.config.bridge
    return [f"bridge: {bytes_per_token(plan, terms):,.0f} bytes a token ({config.wire}), {config.credits} ahead"]


def _teacher_flops(plan: RunPlan, whole: float) -> list[str]:
    if plan.teacher is None:
        return []
    flops = sum(len(phase) * plan.tokens_per_iter * plan.flops_per_token(phase.start)[1] for phase in plan.phases)
    return [f"  of these the teacher: {flops:.4g} ({flops / whole:.1%})"]


def _weights(plan: RunPlan, teacher: TeacherPlan) -> float:
    """Bytes of the fullest rank of a teacher, which has nothing but weights."""
    held = parameters_of_stage(teacher.shape, len(teacher.layers), teacher.layout)
    return held * element_bytes(plan.config.training.precision)


def _memory(plan: RunPlan) -> float:
    """Bytes of the fullest rank of the student."""
    each = parameter_bytes(element_bytes(plan.config.training.precision), plan.config.optimizer.optimizer)
    return parameters_of_stage(plan.shape, len(plan.initial_layers), plan.layout) * each.held(plan.layout.data)
