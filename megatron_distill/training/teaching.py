"""The teacher of a run: what the plan says of it as objects, its own ranks' program, and the student's access to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from megatron.core import parallel_state

from megatron_distill.checkpoint.verify import find_damage_together
from megatron_distill.config.error import ConfigError
from megatron_distill.losses.base import build_loss
from megatron_distill.losses.relations import MiniLM
from megatron_distill.losses.vanilla import Vanilla
from megatron_distill.models.attention import choose_backend
from megatron_distill.models.build import BuildOptions
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import FailedTogether, Role, World
from megatron_distill.teachers.colocated import ColocatedTeacher
from megatron_distill.teachers.model import FrozenTeacher
from megatron_distill.teachers.needs import Needs
from megatron_distill.teachers.received import ReceivedTeacher
from megatron_distill.teachers.routes import Forms, Seat
from megatron_distill.teachers.serve import Server
from megatron_distill.teachers.service import Service

from .feed import Feed
from .objective import TeacherSource, Weighted
from .plan import RunPlan
from .signals import passed_on
from .state import TooManySkippedSteps
from .vocabularies import check_vocabularies

_OF_VOCABULARY = ("final_hidden", "output_weight", "embedding")
"""Kinds of taps whose comparison goes token by token through the vocabulary."""


def build_terms(plan: RunPlan) -> tuple[Weighted, ...]:
    """The losses that a run asks for; needs no process group.

    Raises:
        ConfigError: a loss or an option that there is not, or a teacher that does not fit the student.
    """
    if plan.teacher is None:
        return ()
    terms = tuple(
        Weighted(build_loss(spec.name, **spec.options), spec.weight) for spec in plan.config.distillation.losses()
    )
    needs = needs_of(plan, terms)
    for term in terms:
        term.loss.check(plan.shape, plan.teacher.shape)
        if isinstance(term.loss, MiniLM) and term.loss.relation_heads % plan.layout.tensor:
            raise ConfigError(
                f"--loss minilm: {term.loss.relation_heads} relation heads must be a multiple of "
                f"--tensor-model-parallel-size {plan.layout.tensor}"
            )
    if any(tap.kind in _OF_VOCABULARY for term in terms for tap in term.loss.taps(plan.initial_layers)):
        check_vocabularies(plan)
    names = [name for term in terms for name in term.loss.components]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two of --loss {' '.join(plan.config.distillation.loss)} measure {twice}; give one of them")
    for iteration in {plan.distils_from, plan.total_iters}:
        needs.by_stage(plan.layers_at(iteration), plan.layout.pipeline, plan.teacher.layout.pipeline)
    wire = plan.config.bridge
    outcomes = min(plan.shape.num_outcomes, plan.teacher.shape.num_outcomes)
    if wire.wire == "topk" and wire.top_k > outcomes:
        raise ConfigError(f"--bridge-top-k {wire.top_k} must be at most the {outcomes} tokens that both models have")
    return terms


def roles(plan: RunPlan) -> tuple[Role, ...]:
    """Who does what in the job, in the order of ranks."""
    student = (Role("student", plan.layout),)
    return (*student, Role("teacher", plan.teacher.layout)) if plan.teacher and plan.teacher.separate else student


def bridges(plan: RunPlan, terms: tuple[Weighted, ...]) -> tuple[tuple[int, ...], ...]:
    """Ranks of the job that exchange messages."""
    return _service(plan, terms).bridges() if plan.teacher and plan.teacher.separate else ()


def serve(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> None:
    """The program of a teacher's rank: serve the student until it ends. Collective over the teacher's role.

    A signal that asks to stop is passed on to the student. It ends its step, for which it needs the teacher, saves and
    says that this was all.
    """
    with passed_on(world.store, lasting=True):
        _serve(plan, world, terms)


def _serve(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> None:
    assert world.bridge is not None
    _check_whole(plan)
    # Where the student starts it says itself: it may have gone back to an older checkpoint that is whole.
    controllers = _service(plan, terms).controllers(parallel_state.get_data_parallel_rank())
    starts = {world.bridge.hear(rank) for rank in controllers.values()}
    service = _service(replace(plan, start=starts.pop()), terms)
    server = Server(_frozen(plan, terms), service, world.bridge)
    firsts = (service.first_sample(number, replica) for number, replica in service.items(server.replica))
    server.run(Feed(plan).batches_at(firsts))


@contextmanager
def open_teacher(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> Iterator[TeacherSource | None]:
    """The student's access to its teacher, None without one. Collective over the student's role.

    It is closed at the end of a run and when all ranks give up together. After any other error it is not: what is left
    then is to leave, and the teacher notices that.
    """
    if plan.teacher is None:
        yield None
        return
    source = _source(plan, world, terms)
    try:
        yield source
    except (FailedTogether, TooManySkippedSteps):
        source.close()
        raise
    source.close()


def bytes_per_token(plan: RunPlan, terms: tuple[Weighted, ...]) -> float:
    """What crosses the bridge for a token at the end of the run; 0 without one."""
    if plan.teacher is None or not plan.teacher.separate:
        return 0.0
    return _service(plan, terms).bytes_per_token((plan.total_iters - 1) * plan.layout.num_microbatches)


def _check_whole(plan: RunPlan) -> None:
    """Read every byte of the teacher's checkpoint. Collective over the role."""
    assert plan.teacher is not None
    damage = find_damage_together(plan.teacher.checkpoint)
    if damage:
        raise ConfigError(damage)


def _source(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> TeacherSource:
    if world.bridge is None:
        _check_whole(plan)
        return ColocatedTeacher(_frozen(plan, terms), plan.shape.padded_vocab_size)
    seat = Seat(parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_tensor_model_parallel_rank())
    group = parallel_state.get_tensor_model_parallel_group() if plan.layout.tensor > 1 else None
    replica = parallel_state.get_data_parallel_rank()
    service = _service(plan, terms)
    if seat == service.controller:
        ranks = [rank for server in service.pairing.servers(replica) for rank in service.members(server)]
        for told in [world.bridge.tell(plan.start, rank) for rank in ranks]:
            told.wait()
    return ReceivedTeacher(service, world.bridge, replica, seat, group)


def needs_of(plan: RunPlan, terms: tuple[Weighted, ...]) -> Needs:
    """Which taps of the teacher go with which of the student."""
    assert plan.teacher is not None
    return Needs(
        losses=tuple(term.loss for term in terms),
        wire=plan.config.bridge.wire if plan.teacher.separate else "hidden",
        student_depth=plan.shape.num_layers,
        teacher_depth=plan.teacher.shape.num_layers,
        teacher_layers=plan.teacher.layers,
    )


def _service(plan: RunPlan, terms: tuple[Weighted, ...]) -> Service:
    assert plan.teacher is not None
    config = plan.config
    return Service(
        student=plan.layout,
        teacher=plan.teacher.layout,
        forms=Forms(
            shape=plan.teacher.shape,
            seq_length=config.data.seq_length,
            micro_batch_size=config.training.micro_batch_size,
            dtype=device.dtype(config.training.precision),
            top_k=config.bridge.top_k,
            student_splits_sequence=config.parallel.sequence_parallel,
            student_rows=plan.shape.padded_vocab_size,
        ),
        needs=needs_of(plan, terms),
        layers_at=plan.layers_at,
        measures_at=plan.measures_at,
        steps=range(max(plan.start, plan.distils_from), plan.total_iters),
        credits=config.bridge.credits,
    )


def _frozen(plan: RunPlan, terms: tuple[Weighted, ...]) -> FrozenTeacher:
    assert plan.teacher is not None
    training = plan.config.training
    own = plan.config.teacher if plan.teacher.separate else plan.config.parallel
    options = BuildOptions(
        dtype=device.dtype(training.precision),
        attention_backend=choose_backend(training.attention_backend, training.precision),
        sequence_parallel=own.sequence_parallel,
    )
    losses = [term.loss for term in terms]
    temperatures = [loss.temperature for loss in losses if isinstance(loss, Vanilla)]
    teacher = plan.teacher
    return FrozenTeacher(
        teacher.checkpoint,
        teacher.shape,
        teacher.layers,
        teacher.layout,
        options,
        top_k=plan.config.bridge.top_k,
        temperature=temperatures[0] if temperatures else 1.0,
        outcomes=plan.shape.num_outcomes,
    )
