"""Splits: they use what there is, obey the rules, and the best one is the best."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_distill.config.distillation_cost import METHODS, method_flops_per_token
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig, layout
from megatron_distill.planning.describe import recommended_flags
from megatron_distill.planning.job import Job, Model, make_job
from megatron_distill.planning.request import PlanConfig
from megatron_distill.planning.search import find_splits, shown
from megatron_distill.planning.split import Split
from tests.support.public_models import public_shape

PAPER = {"teacher": "palm-1.1b-paper", "layers": 12, "nominal_tokens": True, "pruning_seed_tokens": "1B"}


def job(**changes: object) -> Job:
    return make_job(PlanConfig(**(PAPER | {"gpus": 8} | changes)))  # type: ignore[arg-type]


def ideal(given: Job) -> Job:
    """Memory and links without limit, so that only products cost time."""
    device = replace(given.device, memory=math.inf, link=math.inf, network=math.inf)
    return replace(given, device=device)


jobs = st.builds(
    lambda model, layers, method, batch, gpus, placement: make_job(
        PlanConfig(
            teacher=model,
            layers=layers,
            method=method,
            global_batch_size=batch,
            gpus=gpus,
            teacher_placement=placement,
        )
    ),
    st.sampled_from(["palm-300m", "palm-300m-paper", "palm-1.1b"]),
    st.sampled_from([6, 12, 16]),
    st.sampled_from(sorted(METHODS)),
    st.sampled_from([64, 96, 256]),
    st.integers(2, 24),
    st.sampled_from(["any", "separate"]),
)


def splits_of(given: Job) -> list[Split]:
    try:
        return find_splits(given)
    except ConfigError:
        return []


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_every_split_obeys_the_rules(given: Job) -> None:
    for split in splits_of(given):
        ours, theirs = split.student, split.teacher or split.student
        assert split.gpus == given.gpus
        assert max(ours.data, theirs.data) % min(ours.data, theirs.data) == 0
        assert given.kept_layers % ours.pipeline == 0
        assert given.student.num_layers % theirs.pipeline == 0 or given.teacher is None
        for role in (ours, theirs):
            assert 16 % role.tensor == 0 and 50304 % role.tensor == 0 and role.tensor <= given.gpus_per_node
            assert role.num_microbatches * role.data * split.micro_batch_size == given.global_batch_size
        if split.placement == "colocated":
            assert ours.pipeline == 1 and split.teacher is None
            assert split.step_seconds == split.student_seconds + split.teacher_seconds
        assert 0 <= split.wait_share < 1
        assert split.step_seconds >= max(split.student_seconds, split.teacher_seconds)
        if given.gpus > given.gpus_per_node and split.teacher:
            assert ours.world_size % theirs.tensor == 0  # no tensor-parallel group of the teacher spans two nodes


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_no_split_beats_the_hardware(given: Job) -> None:
    flops = sum(
        method_flops_per_token(
            given.student.shape,
            given.kept_layers,
            given.teacher.shape if given.teacher else None,
            given.student.num_layers,
            given.seq_length,
            given.losses,
        )
    )
    bound = flops * given.tokens_per_step / (given.gpus * given.device.peak_flops * given.mfu)
    found = splits_of(ideal(given))
    assert all(split.step_seconds >= bound * (1 - 1e-9) for split in found)
    data_parallel = [s for s in found if not s.teacher and s.student.data == given.gpus]
    assert all(split.step_seconds == pytest.approx(bound) for split in data_parallel)


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_twice_the_gpus_never_take_longer(given: Job) -> None:
    """At the same efficiency, and as long as the batch is enough for them."""
    few = splits_of(ideal(replace(given, micro_batch_size=1)))
    many = splits_of(ideal(replace(given, micro_batch_size=1, gpus=2 * given.gpus)))
    if few and all(given.global_batch_size % (2 * s.student.data) == 0 for s in few[:1] if s.fits):
        teachers = [s.teacher.data for s in few[:1] if s.teacher]
        if all(given.global_batch_size % (2 * data) == 0 for data in teachers):
            assert many[0].hours <= few[0].hours * (1 + 1e-9)


@pytest.mark.parametrize("method", ["vanilla", "minilm", "homotopic"])
@pytest.mark.parametrize("gpus", [3, 8, 12])
def test_the_best_split_is_the_balanced_one(method: str, gpus: int) -> None:
    """Among data-parallel splits, found anew by trying every number of teacher ranks."""
    alone = {"teacher_placement": "separate", "pruning_seed_tokens": "0"}  # else ranks in its seed phase count too
    given = ideal(job(method=method, gpus=gpus, global_batch_size=960, **alone))
    shape = given.student.shape
    student, teacher = method_flops_per_token(shape, 12, shape, 24, 2048, given.losses)
    allowed = [
        (n, gpus - n)
        for n in range(1, gpus)
        if 960 % n == 0 and 960 % (gpus - n) == 0 and max(n, gpus - n) % min(n, gpus - n) == 0
    ]
    step = {split: max(student / split[0], teacher / split[1]) for split in allowed}
    found = [
        s
        for s in find_splits(given)
        if s.teacher and s.student.tensor == s.student.pipeline == s.teacher.tensor == s.teacher.pipeline == 1
    ]
    assert found[0].teacher is not None
    chosen = (found[0].student.data, found[0].teacher.data)
    assert step[chosen] == min(step.values())
    assert found[0].wait_share == pytest.approx(max(0.0, 1 - student / chosen[0] / step[chosen]), abs=1e-9)


def test_one_gpu_holds_both() -> None:
    (only,) = find_splits(job(gpus=1))
    assert (only.placement, only.student.world_size, only.teacher) == ("colocated", 1, None)
    assert only.wait_share == 0 and only.fits


def test_a_slow_bridge_makes_the_student_wait() -> None:
    given = job(teacher_placement="separate", bridge_wire="logits")
    slow = replace(given, device=replace(given.device, link=1e8))
    assert find_splits(slow)[0].wait_share > 0.9 > find_splits(given)[0].wait_share


def test_pipeline_bubbles_and_the_output_projection_are_paid() -> None:
    """The last stage has the output projection, and PP - 1 micro-batches more pass in a step."""
    given = ideal(job(method="none", gpus=2, global_batch_size=8, micro_batch_size=1))
    two = next(s for s in find_splits(given) if s.student.pipeline == 2)
    shape, rate = given.student.shape, given.device.peak_flops * given.mfu
    head = 6 * 50304 * 2048
    stage = (shape.flops_per_token(2048, 12) - head) / 2 + head
    assert two.step_seconds == pytest.approx((8 + 2 - 1) * stage * 2048 / rate)


def test_recomputation_costs_a_forward_pass() -> None:
    plain, full = (
        find_splits(ideal(job(method="none", gpus=1, recompute_granularity=how)))[0].step_seconds
        for how in ("none", "full")
    )
    assert 1.25 < full / plain < 1 + 1 / 3


def test_the_papers_hours() -> None:
    """26.5 hours on 4 A100 and 33 on 8 are 22 % and 29 % of the peak by the true count."""
    small = find_splits(job(teacher="palm-300m-paper", method="none", gpus=4, mfu=0.22))[0]
    large = find_splits(job(method="none", gpus=8, mfu=0.29))[0]
    assert small.hours == pytest.approx(26.5, rel=0.03)
    assert large.hours == pytest.approx(33, rel=0.03)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("gpus", [1, 4, 6, 8, 16, 32])
def test_the_trainer_accepts_the_students_flags(method: str, gpus: int) -> None:
    splits = find_splits(job(method=method, gpus=gpus))
    given = job(method=method, gpus=gpus)
    for split in splits[:20]:
        flags = [word for flag in recommended_flags(given, split) for word in flag.split()]
        student = flags[: flags.index("--teacher-placement")]
        model = ["--model", "palm-1.1b-paper", "--global-batch-size", "1024", "--train-tokens", "20B"]
        config = parse(RunConfig, [*model, *student, "--save", "run", "--dry-run"])
        assert layout(config, split.student.world_size, 16, 50304) == split.student
        assert config.parallel.sequence_parallel == (split.student.tensor > 1)


def test_a_separate_split_is_always_shown() -> None:
    splits = find_splits(job())
    few = shown(splits, 2)
    assert few[:2] == splits[:2] and len(few) == 3
    assert few[2].teacher is not None and few[2] == next(s for s in splits if s.teacher)
    assert len(shown(find_splits(job(method="none")), 2)) == 2


def test_what_tensor_and_pipeline_sizes_must_divide() -> None:
    assert {s.student.tensor for s in find_splits(job(seq_length=2046, method="none"))} == {1, 2}
    stages = {"method": "none", "layers": 16, "gpus": 16, "micro_batch_size": 1}
    assert {s.student.pipeline for s in find_splits(job(**stages))} == {1, 2, 4, 8}  # 24 layers in the seed phase
    assert 16 in {s.student.pipeline for s in find_splits(job(**stages, pruning_seed_tokens="0"))}
    grouped = Model("llama", replace(public_shape("llama"), padded_vocab_size=128), 4)  # 4 heads, 2 of keys and values
    given = replace(job(method="none", seq_length=32), student=grouped, kept_layers=4, seed_steps=0)
    assert {s.student.tensor for s in find_splits(given)} == {1, 2}


def test_a_micro_batch_is_large_enough_and_not_larger() -> None:
    assert find_splits(job(method="none"))[0].micro_batch_size == 8
    assert find_splits(job(method="none", seq_length=512))[0].micro_batch_size == 32
    assert find_splits(job(method="none", micro_batch_size=4))[0].micro_batch_size == 4


def test_too_little_memory_says_how_much_is_needed() -> None:
    given = job(gpus=1)
    tight = replace(given, device=replace(given.device, memory=5 * 2**30))
    with pytest.raises(ConfigError, match=r"the smallest needs (\d+\.\d) GiB a rank and 4.5 GiB can be used"):
        find_splits(tight)


def test_ranks_that_cannot_be_divided() -> None:
    with pytest.raises(ConfigError, match="23 GPUs cannot be divided"):
        find_splits(job(gpus=23, method="none"))


def test_a_large_job_is_planned_at_once() -> None:
    found = find_splits(job(gpus=1024, method="homotopic"))
    assert all(split.gpus == 1024 for split in found)
