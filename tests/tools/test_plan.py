"""tools/plan.py, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tools import refusal, run_tool

PAPER = ("--teacher", "palm-1.1b-paper", "--layers", 12, "--nominal-tokens", "--pruning-seed-tokens", "1B")


def test_the_published_flops() -> None:
    lines = run_tool("plan", "--papers").stdout.splitlines()
    assert len(lines) == 10 and all(line.endswith("  equal") for line in lines[2:])
    assert "v2       palm-1.1b-paper  distilled     116.76e18  116.76e18  equal" in lines


def test_a_plan_says_everything() -> None:
    said = run_tool("plan", *PAPER, "--gpus", 12, "--method", "minilm", "--teacher-placement", "separate").stdout
    for part in (
        "student: palm-1.1b-paper, 12 of 24 layers, 606,687,232 parameters",
        "teacher: palm-1.1b-paper, 24 layers, 1,110,347,776 parameters",
        "losses: cross-entropy, vanilla, minilm",
        "run: 10,000 steps of 2,097,152 tokens, 500 of them seed phase",
        "1.168e+20 as the papers count",
        "8 = TP 1 x PP 1 x DP 8  4 = TP 1 x PP 1 x DP 4",
        "  ranks 0-7: student\n  ranks 8-11: teacher, idle",
        "  --teacher-placement separate\n  --teacher-tensor-model-parallel-size 1\n",
        "  --teacher-data-parallel-size 4\n  --bridge-wire hidden\n  --loss vanilla minilm\n",
        "312 TFLOP/s, of which products reach 40% (--mfu)",
        "sends 16,384 bytes a token",
    ):
        assert part in said


def test_json() -> None:
    plan = json.loads(run_tool("plan", *PAPER, "--gpus", 8, "--json").stdout)
    assert f"{plan['flops']['paper'] / 1e18:.2f}" == "116.76"
    assert plan["flops"]["true"] > plan["flops"]["paper"]
    assert {split["placement"] for split in plan["splits"]} == {"colocated", "separate"}
    hours = [split["hours"] for split in plan["splits"]]
    assert hours == sorted(hours) and all(split["fits"] for split in plan["splits"])
    assert plan["assumptions"]["mfu"] == 0.4 and plan["bridge_bytes_per_token"] == 4096
    assert "--teacher-placement colocated" in plan["flags"]


def test_a_run_folder_is_a_teacher(base_run: Path) -> None:
    small = ("--seq-length", 32, "--global-batch-size", 8, "--train-tokens", "1M", "--device", "cpu")
    said = run_tool("plan", "--teacher", base_run, "--layers", 3, "--gpus", 2, *small).stdout
    assert f"student: {base_run}, 3 of 6 layers" in said and "fits" in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "--gpus is missing"),
        (("--gpus", 0), "--gpus 0 must be at least 1"),
        (("--gpus", 8), "--teacher is missing"),
        (("--gpus", 8, "--method", "none"), "--student is missing"),
        (("--gpus", 8, "--teacher", "palm-300n"), "did you mean palm-300m"),
        (("--gpus", 8, *PAPER, "--loss", "vanila"), "did you mean vanilla"),
        (("--gpus", 8, *PAPER, "--method", "vanila"), "invalid choice: 'vanila'"),
        (("--gpus", 8, *PAPER, "--mfu", 1.5), "--mfu 1.5 must be above 0 and at most 1"),
        (("--gpus", 8, *PAPER, "--layers", 25), "--layers 25 must be at most 24"),
        (("--gpus", 8, *PAPER, "--train-tokens", "1B"), "are 500 steps, which must be fewer than the run's 500"),
        (("--gpus", 8, *PAPER, "--train-tokens", "lots"), "is not a number of tokens"),
        (("--gpus", 23, *PAPER, "--method", "none"), "23 GPUs cannot be divided"),
        (("--gpus", 1, *PAPER, "--device", "cpu"), "the smallest needs"),
        (("--gpu", 8), "there is no flag --gpu; did you mean --gpus?"),
        (
            ("--gpus", 8, "--teacher", "palm-1.1b", "--student", "palm-300m", "--method", "homotopic"),
            "loss embedding-table needs the same width on both sides, but the student palm-300m has 1,024",
        ),
        (
            ("--gpus", 8, "--teacher", "palm-180m", "--student", "palm-300m", "--method", "homotopic"),
            "needs a teacher layer for each of the student's 24",
        ),
    ],
)
def test_what_is_refused(flags: tuple[object, ...], sentence: str) -> None:
    assert sentence in refusal("plan", *flags)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert "holds no finished checkpoint" in refusal("plan", "--gpus", 8, "--teacher", tmp_path)
