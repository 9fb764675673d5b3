"""What a plan says of FLOPs, and how it says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.planning.describe import as_json, describe, flops_of_run, recommended_flags
from megatron_distill.planning.job import Job, make_job
from megatron_distill.planning.request import PlanConfig
from megatron_distill.planning.search import find_splits
from megatron_distill.training.plan import make_plan

SCHEDULE = {"global_batch_size": 1024, "train_tokens": "20B", "pruning_seed_tokens": "1B"}


def job(**changes: object) -> Job:
    flags = {"teacher": "palm-300m-paper", "layers": 12, "gpus": 8, "nominal_tokens": True} | SCHEDULE | changes
    return make_job(PlanConfig(**flags))  # type: ignore[arg-type]


def test_without_a_teacher_flops_are_those_of_the_trainer(tmp_path: Path) -> None:
    """Both counts, with a seed phase, as `--dry-run` of the same run has them."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SCHEDULE.items()]
    flags += ["--model", "palm-300m-paper", "--nominal-tokens", "--pruning-layout", "max-gap", "--dry-run"]
    true, paper = make_plan(parse(RunConfig, [*flags, "--save", str(tmp_path)]), 1).training_flops()
    found = flops_of_run(job(method="none"))
    assert (found["true"], found["paper"]) == (pytest.approx(true, rel=1e-12), pytest.approx(paper, rel=1e-12))
    assert found["teacher_per_token"] == 0


def test_the_recommended_flags() -> None:
    given = job(
        gpus=12, teacher_placement="separate", bridge_wire="topk", bridge_top_k=32, recompute_granularity="full"
    )
    separate = next(s for s in find_splits(given) if s.student.tensor == 2 and s.teacher and s.teacher.pipeline == 2)
    assert separate.teacher is not None
    assert recommended_flags(given, separate) == [
        "--tensor-model-parallel-size 2",
        f"--pipeline-model-parallel-size {separate.student.pipeline}",
        "--sequence-parallel",
        f"--micro-batch-size {separate.micro_batch_size}",
        "--recompute-granularity full",
        "--teacher-placement separate",
        f"--teacher-tensor-model-parallel-size {separate.teacher.tensor}",
        "--teacher-pipeline-model-parallel-size 2",
        f"--teacher-data-parallel-size {separate.teacher.data}",
        "--bridge-wire topk",
        "--bridge-top-k 32",
        "--loss vanilla",
    ]


def test_a_split_that_does_not_fit_says_why() -> None:
    given = job(gpus=2, method="none", device="cpu", seq_length=1024)
    splits = find_splits(given)
    said = describe(given, splits)
    assert splits[0].fits and not splits[-1].fits
    assert said.count("only 3.6 GiB") == sum(not split.fits for split in splits)


def test_json_holds_every_split() -> None:
    given = job()
    splits = find_splits(given)
    told = as_json(given, splits)["splits"]
    assert [entry["hours"] for entry in told] == [split.hours for split in splits]
    assert told[0]["student_memory"]["weights"] == splits[0].student_memory.weights
    assert told[0]["student"]["data"] * told[0]["student"]["tensor"] == 8
