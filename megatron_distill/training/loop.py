"""A run from start to end: step, log, validate, save, remove layers, stop."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

from megatron_distill.checkpoint.manifest import read_manifest
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
from .signals import StopAsked, StopSignals
from .state import StepResult, TooManySkippedSteps, TrainState, resumed_state
from .step import measure, train_step
from .student import Student, build_student, describe_student, open_saver
from .teaching import bytes_per_token, open_teacher
from .validate import validate


def check_start(plan: RunPlan) -> None:
    """Check the precision of the checkpoint that the run resumes from, which only a device can resolve.

    Raises:
        ConfigError: on every rank, if it is another one.
    """
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
        state = resumed_state(manifest, plan.resume_from)
    listens = world.is_first and world.bridge is not None
    store = world.store if listens else None
    with StopSignals(store, lasting=True) as signals, open_teacher(plan, world, terms) as teacher:
        # A validation that is missing at a removal is of the model before it.
        before = held is not None and _validation_is_due(plan, state)
        student = build_student(
            plan,
            state.iteration - before,
            weights=plan.resume_from or plan.load_from,
            with_optimizer=plan.resume_from is not None,
            teacher=teacher,
            terms=terms,
        )
        with Metrics(plan, world, state) as metrics:
            metrics.settle()
            metrics.start(student, bytes_per_token(plan, terms))
            saver = open_saver(plan, metrics.saved)
            try:
                stopped = _Loop(student, state, metrics, signals, saver, held).run()
            except TooManySkippedSteps:  # on every rank, so that they can finish what is being written
                saver.wait()
                raise
            if not stopped:
                metrics.result(state)
    return state


def _validation_is_due(plan: RunPlan, state: TrainState) -> bool:
    """Whether a validation of this step is to be made, and has not been: before the first, at every interval, at the
    end."""
    at = state.iteration
    wanted = at == plan.total_iters or at % plan.config.training.eval_interval == 0
    return wanted and state.validated_at != at


class _Loop:
    """A run on one rank of the student, from the first step of this start on. Methods are collective over the role.

    `held` are the layers of the checkpoint that the run resumes from, if it does.
    """

    def __init__(
        self,
        student: Student,
        state: TrainState,
        metrics: Metrics,
        signals: StopSignals,
        saver: Saver,
        held: tuple[int, ...] | None,
    ) -> None:
        self.student, self.state, self.metrics = student, state, metrics
        self.signals, self.saver, self.held = signals, saver, held
        self.plan = student.plan
        self.feed = Feed(self.plan)
        self.saved_at = 0 if held is None else state.iteration
        """The step of the newest checkpoint; of a run that begins, nothing has to be saved at step 0."""

    def run(self) -> bool:
        """Train to the end, or until a rank is asked to stop; returns whether it was stopped."""
        try:
            self._train()
        except StopAsked:
            self._save()
            self.saver.wait()
            at = f"stopped at step {self.state.iteration}, saved" if self.state.iteration else "stopped at step 0"
            self.metrics.say(f"{at}; the same command goes on from here")
            return True
        self.saver.wait()
        return False

    def _train(self) -> None:
        state, plan = self.state, self.plan
        if self.feed.valid is None:
            self.metrics.say("no validation: --split leaves less than one sample for it")
        self._look()
        if self.held is not None and self.held != self.student.layers:
            self._after_removal(self.held)  # it ended after the save in front of a removal
        elif _validation_is_due(plan, state):
            self._validate()
        batches = self.feed.training_batches(state.consumed_samples)
        while state.iteration < plan.total_iters:
            if plan.layers_at(state.iteration) != self.student.layers:
                self._remove_layers()
            result = take_step(self.student, state, batches, self.metrics, should_stop=self.signals.received)
            self.saver.poll()
            last = state.iteration == plan.total_iters
            if (result.stop or state.iteration == plan.config.training.exit_interval) and not last:
                raise StopAsked
            if _validation_is_due(plan, state):
                self._validate()
            if last or state.iteration % plan.config.checkpoint.save_interval == 0:
                self._save()
                if not last:
                    self._look()

    def _look(self) -> None:
        """Stop if a rank was asked to while it built, loaded or saved."""
        if self.signals.received_by_any()[0]:
            raise StopAsked

    def _validate(self) -> None:
        state = self.state
        loss = validate(self.student, self.feed, self.signals)
        state.validated_at = state.iteration
        if loss is None:
            if self.feed.valid is not None:
                why = "no token of the validation windows counts"
                self.metrics.say(f"step {state.iteration}: no validation loss: {why}")
            return
        state.perplexity = math.exp(min(loss, 700.0))
        if state.initial_perplexity is None:
            state.initial_perplexity = state.perplexity
        self.metrics.validation(state, loss)

    def _save(self) -> None:
        if self.saved_at == self.state.iteration:
            return
        self.metrics.settle()
        self.saver.save(describe_student(self.student, self.state), self.student.model, self.student.optimizer)
        self.saved_at = self.state.iteration

    def _remove_layers(self) -> None:
        before = self.student.layers
        self._save()
        self.student = _rebuild(self.student, self.state, self.saver.wait())
        self._after_removal(before)

    def _after_removal(self, before: tuple[int, ...]) -> None:
        """What a removal changes besides the student; it is not in the checkpoint, which is from before."""
        state, kept = self.state, self.student.layers
        state.paper_tokens, state.component_means = 0, None
        self.metrics.removed(state, sorted(set(before) - set(kept)), kept)
        if state.iteration == self.plan.last_removal:
            state.initial_perplexity = None
            self._validate()


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
