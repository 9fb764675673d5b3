"""The student role: the model, its gradients' buffers and its optimizer, for one set of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron_distill.checkpoint.manifest import Manifest
from megatron_distill.checkpoint.native import load_checkpoint
from megatron_distill.checkpoint.saving import Saver
from megatron_distill.models.attention import choose_backend
from megatron_distill.models.build import BuildOptions, Decoder, build_decoder, initialise
from megatron_distill.optim.build import build_optimizer, wrap_ddp
from megatron_distill.parallel import device

from .objective import Objective, TeacherSource, Weighted
from .plan import RunPlan
from .state import TrainState
from .teaching import needs_of


@dataclass
class Student:
    """What one rank trains."""

    plan: RunPlan
    layers: tuple[int, ...]
    frozen: frozenset[int]
    model: Decoder
    ddp: DistributedDataParallel
    optimizer: DistributedOptimizer
    objective: Objective | None = None
    """Its losses against a teacher, if it has one."""


def build_student(
    plan: RunPlan,
    iteration: int,
    *,
    weights: Path | None,
    with_optimizer: bool,
    teacher: TeacherSource | None = None,
    terms: tuple[Weighted, ...] = (),
) -> Student:
    """The student as step `iteration` trains it: fresh, or with the weights (and optimizer state) of a checkpoint.

    A checkpoint may hold more layers than the student has. Collective over the role.
    """
    training = plan.config.training
    options = BuildOptions(
        dtype=device.dtype(training.precision),
        attention_backend=choose_backend(training.attention_backend, training.precision),
        sequence_parallel=plan.config.parallel.sequence_parallel,
        recompute=training.recompute_granularity == "full",
    )
    layers, frozen = plan.layers_at(iteration), plan.frozen_at(iteration)
    model = build_decoder(plan.shape, layers, plan.layout, options, frozen=frozen)
    if weights is None:
        initialise(model, training.seed)
    ddp = wrap_ddp(model, plan.config.parallel)
    optimizer = build_optimizer(ddp, plan.config.optimizer)
    if weights is not None:
        load_checkpoint(weights, model, optimizer if with_optimizer else None)
    if not with_optimizer and not optimizer.is_stub_optimizer:
        optimizer.reload_model_params()
    objective = None
    if teacher is not None:
        objective = Objective(
            model,
            layers,
            terms,
            needs_of(plan, terms),
            teacher,
            lm_weight=plan.config.distillation.lm_weight,
            counts_gradients=ddp.ddp_config.overlap_grad_reduce,
            teacher_vocab_size=plan.teacher.shape.num_outcomes if plan.teacher else None,
        )
    return Student(plan, layers, frozen, model, ddp, optimizer, objective)


def save_student(student: Student, state: TrainState) -> Path:
    """A checkpoint of the whole run state, complete when this returns. Collective over the role."""
    saver = open_saver(student.plan)
    saver.background = False
    saver.save(describe_student(student, state), student.model, student.optimizer)
    folder = saver.wait()
    assert folder is not None
    return folder


def open_saver(plan: RunPlan, when_finished: Callable[[Path], None] | None = None) -> Saver:
    """The one that writes a run's checkpoints."""
    flags = plan.config.checkpoint
    return Saver(
        Path(flags.save),
        newest=plan.resume_from,
        keep=flags.keep_checkpoints,
        retain_interval=flags.save_retain_interval,
        background=flags.async_save,
        when_finished=when_finished,
    )


def describe_student(student: Student, state: TrainState) -> Manifest:
    """What a checkpoint of it says about itself."""
    plan = student.plan
    return Manifest(
        iteration=state.iteration,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        shape=plan.shape,
        layers=student.layers,
        trainable_layers=tuple(i for i in student.layers if i not in student.frozen),
        optimizer=plan.config.optimizer.optimizer,
        dtype=str(student.model.config.params_dtype).removeprefix("torch."),
        progress=state.progress(),
        sample_order=plan.sample_order,
        schedule={"total_iters": plan.total_iters, "warmup_iters": plan.warmup_iters},
        objective=plan.objective,
        tokenizer=plan.tokenizer,
        tokenizer_fingerprint=plan.tokenizer_fingerprint,
        generation=plan.generation,
        origin=plan.origin,
    )
