"""Who sends what to whom: integers, for layouts that nobody has tried."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig
from megatron_distill.config.run import Layout
from megatron_distill.losses.base import build_loss
from megatron_distill.pruning.where import layers_to_remove
from megatron_distill.tap import Tap
from megatron_distill.teachers.needs import Needs, stage_of
from megatron_distill.teachers.routes import Form, Forms, Pairing, plan_messages
from megatron_distill.teachers.service import Service

SEQ, MICRO, TOP_K = 48, 2, 3
SHAPE = ModelConfig(
    model="palm-tiny",
    num_layers=12,
    hidden_size=96,
    num_attention_heads=24,
    vocab_size=70,
    make_vocab_size_divisible_by=24,
).shape()
FORMS = Forms(SHAPE, SEQ, MICRO, torch.float32, TOP_K, student_splits_sequence=False)
KINDS = ("queries", "keys", "values", "attention_output", "hidden")
TAPS = [Tap(kind, 3) for kind in KINDS] + [Tap("final_hidden"), Tap("logits"), Tap("output_weight"), Tap("embedding")]
TAPS += [Tap("top_log_probs"), Tap("top_indices"), Tap("tail")]
LOSSES = ("vanilla", "minilm", "hidden-states", "embedding-table", "attention-scores", "attention-outputs")
POWERS = st.sampled_from([1, 2, 4, 8])


def needs(*losses: str, depth: int = 12, layers: tuple[int, ...] = tuple(range(12)), of: int = 12) -> Needs:
    """Of a student of `depth` from a teacher that has `layers` of what were `of`."""
    built = tuple(build_loss(name) for name in losses)
    return Needs(built, "hidden", student_depth=depth, teacher_depth=of, teacher_layers=layers)


def lay(tensor: int, pipeline: int, data: int, num_microbatches: int = 3) -> Layout:
    return Layout(tensor=tensor, pipeline=pipeline, data=data, num_microbatches=num_microbatches)


def service(student: Layout, teacher: Layout, **changes: object) -> Service:
    """Of six steps with a removal before step 4; steps 2 and 4 are measured."""
    values: dict[str, object] = {
        "forms": FORMS,
        "needs": needs(*LOSSES[:2]),
        "layers_at": lambda step: tuple(range(12)) if step < 4 else tuple(range(0, 12, 2)),
        "measures_at": lambda step: step in (2, 4),
        "steps": range(2, 6),
        "credits": 4,
    }
    return Service(student=student, teacher=teacher, **{**values, **changes})  # type: ignore[arg-type]


@settings(deadline=None)
@given(teacher=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), student=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_every_element_crosses_once(teacher: int, student: int) -> None:
    messages = plan_messages([[(tap, 0) for tap in TAPS]], FORMS, teacher, student)
    crossed = {tap: np.zeros(FORMS.of(tap).size[FORMS.of(tap).dim], dtype=int) for tap in TAPS}
    for (source, target), slices in messages.items():
        for part in slices:
            length = len(crossed[part.tap])
            crossed[part.tap][part.start : part.stop] += 1
            for rank, size in ((source.tensor, teacher), (target.tensor, student)):
                assert length * rank // size <= part.start < part.stop <= length * (rank + 1) // size
    assert all((count == 1).all() for count in crossed.values())


@given(student=POWERS, teacher=POWERS, numbers=st.integers(1, 20))
def test_each_micro_batch_of_each_replica_has_one_server(student: int, teacher: int, numbers: int) -> None:
    pairing = Pairing(teacher=teacher, student=student)
    work: Counter[int] = Counter()
    for replica in range(student):
        assert len(set(pairing.servers(replica))) == max(1, teacher // student)
        for number in range(numbers):
            server = pairing.server(replica, number)
            assert server in pairing.servers(replica) and replica in pairing.served(server)
            assert pairing.group_of_teacher(server) == pairing.group_of_student(replica)
            work[server] += 1
    turns = max(1, teacher // student)
    assert max(work.values()) - min(work[server] for server in range(teacher)) <= (1 if numbers % turns else 0)
    assert sorted(r for server in range(0, teacher, turns) for r in pairing.served(server)) == list(range(student))


@given(student=POWERS, teacher=POWERS, num_microbatches=st.integers(1, 5))
def test_servers_and_students_go_through_the_same_items(student: int, teacher: int, num_microbatches: int) -> None:
    """All servers together serve every micro-batch of every replica as often as it is taken, each in its order."""
    found = service(lay(1, 2, student, num_microbatches), lay(2, 1, teacher, num_microbatches))
    taken = list(found.numbers())
    assert len(taken) == (4 + 2) * num_microbatches
    assert taken == [s * num_microbatches + i for s in (2, 2, 3, 4, 4, 5) for i in range(num_microbatches)]
    served = {server: list(found.items(server)) for server in range(teacher)}
    for replica in range(student):
        for server in range(teacher):
            own = [number for number, whose in served[server] if whose == replica]
            assert own == [n for n in taken if found.pairing.server(replica, n) == server]
    assert sum(map(len, served.values())) == len(taken) * student


@given(student=st.tuples(POWERS, POWERS, POWERS), teacher=st.tuples(POWERS, POWERS, POWERS))
def test_bridges_share_out_the_ranks(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> None:
    found = service(lay(*student), lay(*teacher))
    bridges = found.bridges()
    assert len(bridges) == min(student[2], teacher[2])
    assert len({len(members) for members in bridges}) == 1
    ranks = sorted(rank for members in bridges for rank in members)
    assert ranks == list(range(found.student.world_size + found.teacher.world_size))
    for replica in range(student[2]):
        for server in found.pairing.servers(replica):
            ends = {found.student_rank(replica, found.controller)}
            ends |= {found.student_rank(replica, target) for _, target in found.messages_at(6)}
            ends |= {found.teacher_rank(server, source) for source, _ in found.messages_at(6)}
            assert any(ends <= set(members) for members in bridges)


@given(data=POWERS, micro=st.integers(1, 3), num_microbatches=st.integers(1, 4), step=st.integers(0, 5))
@settings(deadline=None)
def test_stamps_are_the_samples_that_the_student_reads(data: int, micro: int, num_microbatches: int, step: int) -> None:
    from megatron_distill.training.feed import Feed

    found = service(lay(1, 1, data, num_microbatches), lay(1, 1, 1), forms=replace(FORMS, micro_batch_size=micro))
    batch = micro * data * num_microbatches
    plan = mock.Mock(layout=found.student, total_samples=6 * batch)
    plan.config.training.micro_batch_size = micro
    feed = Feed.__new__(Feed)
    feed.plan = plan
    for replica in range(data):
        with (
            mock.patch("megatron_distill.training.feed.parallel_state.get_data_parallel_rank", return_value=replica),
            mock.patch.object(feed, "batches_at", side_effect=list),
        ):
            firsts = feed.training_batches(step * batch)
        numbers = range(step * num_microbatches, 6 * num_microbatches)
        assert firsts == [found.stamp(number, replica, None).first_sample for number in numbers]


@pytest.mark.parametrize("layout", ["input", "output", "max-gap"])
@pytest.mark.parametrize(("stages", "teacher_stages"), [(1, 1), (2, 3), (3, 2), (6, 4)])
def test_each_stage_asks_the_stage_that_has_the_original_layer(layout: str, stages: int, teacher_stages: int) -> None:
    gone = layers_to_remove(layout, 12, 6)
    kept = tuple(i for i in range(12) if i not in gone)
    wanted = needs(*LOSSES).by_stage(kept, stages, teacher_stages)
    per_stage, per_teacher = 6 // stages, 12 // teacher_stages
    for stage, taps in enumerate(wanted):
        own = kept[stage * per_stage : (stage + 1) * per_stage]
        expected = {
            Tap(kind, i): i // per_teacher for i in own for kind in ("hidden", "queries", "keys", "attention_output")
        }
        if stage == stages - 1:
            expected |= {Tap("values", kept[-1]): kept[-1] // per_teacher}
            expected |= {Tap(kind): teacher_stages - 1 for kind in ("final_hidden", "output_weight")}
        if stage == 0:
            expected[Tap("embedding")] = 0
        assert dict(taps) == expected and len(taps) == len(expected)


def test_layers_of_models_of_different_depth_are_those_as_far_up() -> None:
    shallow = needs("hidden-states", depth=4)
    assert [shallow.layer(i) for i in range(4)] == [2, 5, 8, 11]
    deep = needs("hidden-states", depth=24)
    assert [deep.layer(i) for i in (1, 3, 5, 23)] == [0, 1, 2, 11]
    taps = dict(shallow.by_stage((0, 1, 2, 3), 2, 4)[1])
    assert taps == {Tap("hidden", 8): 2, Tap("hidden", 11): 3}


@given(depth=st.integers(1, 40), of=st.integers(1, 40))
def test_every_layer_has_a_counterpart_further_up_or_as_far(depth: int, of: int) -> None:
    found = needs("hidden-states", depth=depth, layers=tuple(range(of)), of=of)
    layers = [found.layer(i) for i in range(depth)]
    assert layers == sorted(layers) and layers[-1] == of - 1 and layers[0] >= 0


def test_a_layer_that_the_teacher_lost_is_said() -> None:
    lost = needs("hidden-states", layers=(0, 1, 2, 9, 10, 11))
    assert lost.layer(9) == 9
    with pytest.raises(ConfigError, match="the teacher has no layer 3 to compare the student's with"):
        lost.by_stage((0, 3, 11), 1, 1)


def test_wires() -> None:
    """What stands for the logits, and what a token of it weighs."""
    own = [Tap("final_hidden"), Tap("output_weight")]
    found = {}
    for wire in ("hidden", "logits", "topk"):
        chosen = replace(needs("vanilla"), wire=wire)
        assert [tap for tap, _ in chosen.by_stage((0, 11), 1, 1)[0]] == [o for t in own for o in chosen.of_teacher(t)]
        found[wire] = service(lay(1, 1, 1), lay(1, 1, 1), needs=chosen).bytes_per_token(12)
    header = 64 / (SEQ * MICRO)
    assert found["hidden"] == 4 * 96 + header
    assert found["logits"] == 4 * 72 + header
    assert found["topk"] == 8 * TOP_K + 4 + header


def test_sequence_parallel_students_take_parts_of_hidden_states() -> None:
    assert FORMS.of(Tap("hidden", 1)) == Form((SEQ, MICRO, 96), 0, torch.float32, is_gathered=True)
    split = replace(FORMS, student_splits_sequence=True)
    assert not split.of(Tap("hidden", 1)).is_gathered and split.of(Tap("final_hidden")).is_gathered


def test_tables_are_on_the_outer_stages() -> None:
    assert [stage_of(Tap(kind), (0, 5), 2) for kind in ("embedding", "output_weight", "final_hidden")] == [0, 1, 1]
