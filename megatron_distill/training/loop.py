"""A run from start to end: step, log, validate, save, remove layers, stop."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from megatron_distill.checkpoint.manifest import latest_checkpoint, read_manifest
from megatron_distill.checkpoint.saving import Saver
from megatron_distill.config.error import ConfigError
from megatron_distill.losses.total import LM
from megatron_distill.optim.learning_rate import learning_rate
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import World

from .feed import Feed
from .metrics import Metrics
from .objective import TeacherSource, Weighted
from .plan import RunPlan
from .state import StepResult, TooManySkippedSteps, TrainState
from .step import measure, train_step
from .student import Student, build_student, describe_student, open_saver
from .teaching import bytes_per_token, open_teacher
from .validate import validate


def check_start(plan: RunPlan) -> None:
    """What only the ranks together can check of where the run starts. Collective over the role.

    Raises:
        ConfigError: on every rank, if they found different newest checkpoints (another run may have written since, and
            a shared disk may show a node what was there a while ago), or one in another precision.
    """
    found: list[tuple[Path | None, ...]] = [()] * dist.get_world_size()
    dist.all_gather_object(found, (plan.resume_from, latest_checkpoint(Path(plan.config.checkpoint.save))))
    if len(set(itertools.chain(*found))) > 1:
        raise ConfigError(f"ranks disagree on the newest checkpoint of {plan.config.checkpoint.save}; start again")
    if plan.resume_from is None:
        return
    ours, theirs = device.dtype(plan.config.training.precision), read_manifest(plan.resume_from).dtype
    if str(ours) != f"torch.{theirs}":
        precision = {"float32": "fp32", "bfloat16": "bf16"}[theirs]
        raise ConfigError(f"{plan.config.checkpoint.save} was trained in {theirs}; give --precision {precision}")


def run(plan: RunPlan, world: World, terms: tuple[Weighted, ...] = ()) -> TrainState:
    """Train from where the plan starts to its end, or until asked to stop. Collective over the role."""
    state, held = TrainState(), None
    if plan.resume_from is not None:
        manifest = read_manifest(plan.resume_from)
        held = manifest.layers
        state = TrainState(
            iteration=manifest.iteration,
            consumed_samples=manifest.consumed_samples,
            consumed_tokens=manifest.consumed_tokens,
            **manifest.progress,
        )
    with open_teacher(plan, world, terms) as teacher:
        student = build_student(
            plan,
            state.iteration,
            weights=plan.resume_from or plan.load_from,
            with_optimizer=plan.resume_from is not None,
            teacher=teacher,
            terms=terms,
        )
        with Metrics(plan, world, state) as metrics, _StopSignals() as signals:
            metrics.settle()
            metrics.start(student, bytes_per_token(plan, terms))
            saver = open_saver(plan, metrics.saved)
            try:
                stopped = _train(student, state, metrics, signals, held, saver)
            except TooManySkippedSteps:  # on every rank, so that they can finish what is being written
                saver.wait()
                raise
            if not stopped:
                metrics.result(state)
    return state


def _train(
    student: Student,
    state: TrainState,
    metrics: Metrics,
    signals: _StopSignals,
    held: tuple[int, ...] | None,
    saver: Saver,
) -> bool:
    """The loop; returns whether it was stopped before its end. `held` are the layers of the checkpoint it goes on from,
    if it does."""
    plan = student.plan
    feed = Feed(plan)
    if feed.valid is None:
        metrics.say("no validation: --split leaves less than one sample for it")
    if held is None:
        _validate(student, state, feed, metrics)
    elif held != student.layers:  # it ended after the save in front of a removal
        _after_removal(student, state, feed, metrics, held)
    saved_at = -1 if held is None else state.iteration
    batches = feed.training_batches(state.consumed_samples)
    while state.iteration < plan.total_iters:
        if plan.layers_at(state.iteration) != student.layers:
            before = student.layers
            if saved_at != state.iteration:
                saved_at = _save(student, state, metrics, saver)
            student = _rebuild(student, state, saver.wait())
            _after_removal(student, state, feed, metrics, before)
        result = take_step(student, state, batches, metrics, should_stop=signals.received)
        saver.poll()
        last = state.iteration == plan.total_iters
        stop = (result.stop or state.iteration == plan.config.training.exit_interval) and not last
        if last or (state.iteration % plan.config.training.eval_interval == 0 and not stop):
            _validate(student, state, feed, metrics)
        if last or stop or state.iteration % plan.config.checkpoint.save_interval == 0:
            saved_at = _save(student, state, metrics, saver)
        if stop:
            saver.wait()
            metrics.say(f"stopped at step {state.iteration}, saved; the same command goes on from here")
            return True
    saver.wait()
    return False


def take_step(
    student: Student, state: TrainState, batches: Iterator, metrics: Metrics, *, should_stop: bool
) -> StepResult:
    """One step of a run: learning rate, update, counters, log line. Collective over the role.

    Raises:
        TooManySkippedSteps: --max-nan-steps in a row updated nothing.
    """
    plan, config = student.plan, student.plan.config
    lr = learning_rate(
        state.iteration + 1,
        peak=config.optimizer.lr,
        warmup_iters=plan.warmup_iters,
        total_iters=plan.total_iters,
        min_ratio=config.optimizer.min_lr_ratio,
        style=config.optimizer.lr_decay_style,
    )
    begun = time.perf_counter()
    first = state.iteration * plan.layout.num_microbatches
    if plan.measures_at(state.iteration):
        ahead = list(itertools.islice(batches, plan.layout.num_microbatches))
        state.component_means, batches = measure(student, ahead, first), iter(ahead)
    scales = None if state.component_means is None else plan.normalisation.scales(state.component_means)
    should_stop = should_stop or metrics.failure is not None
    result = train_step(student, batches, lr, should_stop=should_stop, first=first, scales=scales)
    if state.component_means is not None:
        means = {LM: result.loss} | result.components
        state.component_means = plan.normalisation.average(means, state.component_means)
    took = time.perf_counter() - begun
    state.seconds += took
    if scales is not None:
        state.taught_seconds += took
        state.waited_seconds += result.waited_seconds
    state.flops += plan.step_flops(state.iteration)
    state.iteration += 1
    state.consumed_samples += config.training.global_batch_size
    state.consumed_tokens += plan.tokens_per_iter
    state.paper_tokens += plan.tokens_per_iter
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if result.skipped else 0
    state.skipped_steps += result.skipped
    metrics.step(state, result, lr)
    _check_skipped(state, result, config.training.max_nan_steps)
    return result


def _check_skipped(state: TrainState, result: StepResult, limit: int) -> None:
    if state.skipped_in_a_row >= limit:
        raise TooManySkippedSteps(
            f"the gradient was not finite for {limit} steps in a row up to step {state.iteration} "
            f"(loss {result.loss}, gradient norm {result.grad_norm}); lower --lr or look at the data; "
            "the last checkpoint is from before"
        )


def _validate(student: Student, state: TrainState, feed: Feed, metrics: Metrics) -> None:
    loss = validate(student, feed)
    if loss is None:
        if feed.valid is not None:
            metrics.say(f"step {state.iteration}: no validation loss: no token of the validation windows counts")
        return
    state.perplexity = math.exp(min(loss, 700.0))
    if state.initial_perplexity is None:
        state.initial_perplexity = state.perplexity
    metrics.validation(state, loss)


def _save(student: Student, state: TrainState, metrics: Metrics, saver: Saver) -> int:
    metrics.settle()
    saver.save(describe_student(student, state), student.model, student.optimizer)
    return state.iteration


def _rebuild(student: Student, state: TrainState, checkpoint: Path | None) -> Student:
    """Go on with fewer layers: forget the student and resume from its checkpoint without them.

    So the layers leave the model, the optimizer, the checkpoint and the FLOPs count, the others keep their optimizer
    state, pipeline stages are balanced anew, and a crash at any point finds a checkpoint to go on from.
    """
    plan = student.plan
    teacher: TeacherSource | None = None
    terms: tuple[Weighted, ...] = ()
    if student.objective is not None:
        teacher, terms = student.objective.source, student.objective.terms
        student.objective.close()
    # Drop the last references before the smaller model is built, or both would be held at once.
    vars(student).clear()
    device.release_memory()
    return build_student(plan, state.iteration, weights=checkpoint, with_optimizer=True, teacher=teacher, terms=terms)


def _after_removal(student: Student, state: TrainState, feed: Feed, metrics: Metrics, before: tuple[int, ...]) -> None:
    """What a removal changes besides the student; it is not in the checkpoint, which is from before."""
    state.paper_tokens, state.component_means = 0, None
    metrics.removed(state, sorted(set(before) - set(student.layers)), student.layers)
    if state.iteration == student.plan.last_removal:
        state.initial_perplexity = None
        _validate(student, state, feed, metrics)


class _StopSignals:
    """SIGTERM and SIGINT ask for a checkpoint and a clean end after the current step."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> _StopSignals:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.received = True
