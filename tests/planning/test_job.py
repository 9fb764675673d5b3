"""From flags to a job: steps, models, and what does not go together."""

from __future__ import annotations

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.planning.job import Job, Model, check_pair, check_positions, find_model, make_job
from megatron_distill.planning.request import PlanConfig
from tests.support.public_models import public_shape


def job(**flags: object) -> Job:
    return make_job(PlanConfig(teacher="palm-300m-paper", gpus=8, **flags))  # type: ignore[arg-type]


def test_tokens_count_as_in_the_trainer() -> None:
    nominal = job(nominal_tokens=True, pruning_seed_tokens="1B")
    assert (nominal.total_steps, nominal.seed_steps, nominal.tokens_per_step) == (10_000, 500, 2_097_152)
    assert (job().total_steps, job().seed_steps) == (9_537, 0)  # 20e9 / 2^21, rounded up


def test_a_seed_phase_needs_layers_that_leave() -> None:
    assert not job(pruning_seed_tokens="1B").has_seed_phase
    assert job(pruning_seed_tokens="1B", layers=12).has_seed_phase


def test_the_student_is_the_teachers_layers_unless_named() -> None:
    assert job(layers=12).student == job(layers=12).teacher
    other = job(student="palm-180m-paper")
    assert other.student.num_layers == other.kept_layers == 12 and other.teacher != other.student
    assert job(method="none").teacher is None and job(method="none").placement == "none"


LLAMA = Model("llama", public_shape("llama-3.1"), 4)


@pytest.mark.parametrize(
    ("loss", "teacher", "sentence"),
    [
        ("vanilla", LLAMA, "needs the same padded vocabulary"),
        ("attention-scores", find_model("--teacher", "palm-1.1b"), "needs the same number of attention heads"),
        ("hidden-states", find_model("--teacher", "palm-1.1b"), "needs the same width"),
        ("attention-outputs", LLAMA, "needs a teacher layer for each of the student's 5"),
    ],
)
def test_a_pair_that_does_not_fit(loss: str, teacher: Model, sentence: str) -> None:
    student = find_model("--student", "palm-tiny")
    check_pair(student, 5, teacher, ("minilm",))  # relations need neither
    with pytest.raises(ConfigError, match=f"loss {loss} {sentence}"):
        check_pair(student, 5, teacher, (loss,))


def test_learned_positions_end() -> None:
    model = Model("gpt2", public_shape("gpt2"), 4)
    check_positions(model, 64)
    with pytest.raises(ConfigError, match="--seq-length 65 must be at most 64, the positions that gpt2 has learned"):
        check_positions(model, 65)
    check_positions(Model("llama", public_shape("llama"), 4), 65)
