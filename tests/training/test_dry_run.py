"""What `--dry-run` says."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.model import ModelConfig
from megatron_distill.config.run import RunConfig
from megatron_distill.planning.experiment import costs
from megatron_distill.training.dry_run import describe
from megatron_distill.training.plan import make_plan
from tests.support.runs import MODEL, SMALL, start

PAPER = [
    *("--model", "palm-1.1b-paper", "--train-tokens", "20B", "--nominal-tokens", "--lr-warmup-tokens", "800M"),
    *("--global-batch-size", "1024", "--micro-batch-size", "8", "--lr", "2e-5", "--dry-run"),
    *("--pruning-layout", "input", "--pruning-seed-tokens", "1B", "--pruning-gap-tokens", "1B"),
]


def said(save: Path, *flags: object, world_size: int = 1) -> str:
    """The text for a run."""
    config = parse(RunConfig, [*map(str, flags), "--save", str(save)])
    return describe(make_plan(config, world_size))


def test_the_papers_run(tmp_path: Path) -> None:
    text = said(tmp_path / "r", *PAPER, world_size=8)
    for line in (
        "model: 1,110,347,776 parameters, 24 layers x 2048, 16 heads, 50,304 vocabulary rows",
        "schedule: 10,000 steps of 2,097,152 tokens (20,971,520,000), warm-up 400",
        "  before step 501: layers 1",
        "  before step 6,001: layers 12",
        "  12 layers stay: 0, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 (606,687,232 parameters)",
        "start: fresh weights",
        "student: 8 ranks = TP 1 x PP 1 x DP 8",
        "micro-batches a step and data-parallel rank: 16",
        "  --lr 2e-05",
        "  --pruning-layout input",
    ):
        assert line in text.splitlines()
    assert len(re.findall("before step", text)) == 12


def test_flops_in_both_counts(tmp_path: Path) -> None:
    at_once = [flag for flag in PAPER if flag not in ("--pruning-gap-tokens",)]
    at_once[-1:] = []
    assert "7.252e+19 as the papers count" in said(tmp_path / "r", *at_once)


def test_the_rank_map_says_who_is_where(tmp_path: Path) -> None:
    layout = ["--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2]
    text = said(tmp_path / "r", *PAPER, *layout, world_size=8)
    found = re.findall(r"  stage (\d), replica (\d): ranks (\S+)", text)
    # tensor first, then data, then pipeline
    assert found == [("0", "0", "0-1"), ("0", "1", "2-3"), ("1", "0", "4-5"), ("1", "1", "6-7")]


def test_many_replicas_are_counted(tmp_path: Path) -> None:
    text = said(tmp_path / "r", *PAPER, world_size=16)
    assert "  stage 0, replica 3: ranks 3\n  stage 0: and 12 replicas more\n" in text


@pytest.mark.parametrize(
    ("optimizer", "world", "bytes_each"), [("lion", 1, 14), ("adamw", 1, 18), ("lion", 8, 7), ("adamw", 8, 7.5)]
)
def test_memory_is_weights_gradients_and_a_share_of_the_optimizer(
    optimizer: str, world: int, bytes_each: float, tmp_path: Path
) -> None:
    """A weight and its gradient are 2 + 4 bytes; the master weight and 1 or 2 moments are 4 each, shared out."""
    semantics = ["--decay-semantics", "lr"] if optimizer == "adamw" else []
    text = said(tmp_path / "r", *PAPER, "--optimizer", optimizer, *semantics, world_size=world)
    assert f"memory a rank, at most: {1_110_347_776 * bytes_each / 2**30:.2f} GiB" in text


def test_what_is_counted_is_what_is_held_and_stored(corpus: Path, tmp_path: Path) -> None:
    """The dry run and the costs of an experiment count alike, and as a real checkpoint has it."""
    for precision, optimizer in itertools.product(("fp32", "bf16"), ("lion", "adamw")):
        run = tmp_path / f"{precision}-{optimizer}"
        flags = [*MODEL, *SMALL, "--vocab-size", 4000, "--data-path", corpus, "--train-iters", 1, "--save", run]
        flags += ["--precision", precision, "--optimizer", optimizer, "--decay-semantics", "lr"]
        flags += ["--keep-checkpoints", 1, "--num-layers", 4]
        (cost,) = costs([shlex.join(map(str, flags))], ranks=1)
        start(*flags)
        stored = sum(path.stat().st_size for path in run.glob("checkpoints/*/*.distcp"))
        assert cost.disk < stored < 1.05 * cost.disk
        parameters = ModelConfig(model="palm-tiny", vocab_size=4000, num_layers=4, make_vocab_size_divisible_by=16)
        held = cost.disk + 4 * parameters.shape().num_parameters(4)
        assert f"memory a rank, at most: {held / 2**30:.2f} GiB" in said(tmp_path / "dry", *flags)


def test_memory_of_a_stage(tmp_path: Path) -> None:
    layout = ["--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2]
    text = said(tmp_path / "r", *PAPER, *layout, world_size=4)
    table = 50304 * 2048
    held = ((1_110_347_776 - table) / 2 + table) / 2
    assert f"memory a rank, at most: {held * 14 / 2**30:.2f} GiB" in text


def test_where_it_starts(base_run: Path, tmp_path: Path) -> None:
    flags = ["--train-iters", 40, "--dry-run", "--seq-length", 32]
    checkpoint = base_run / "checkpoints" / "iter_0000030"
    assert f"start: weights of {checkpoint}" in said(tmp_path / "r", *flags, "--load", base_run)
    model = ["--num-layers", 6, "--vocab-size", 60, "--make-vocab-size-divisible-by", 16]
    assert f"start: resume {checkpoint} at step 30" in said(base_run, *flags, *model, "--override-lr-schedule")


def test_a_teacher_on_ranks_of_its_own(base_run: Path, tmp_path: Path) -> None:
    flags = ["--train-iters", 40, "--dry-run", "--seq-length", 32, "--load", base_run, "--precision", "fp32"]
    flags += ["--loss", "vanilla:weight=2,temperature=2", "hidden-states", "--lm-weight", 0.5]
    flags += ["--global-batch-size", 4, "--pruning-layout", "1,4", "--pruning-seed-tokens", 10 * 4 * 32]
    layout = ["--pipeline-model-parallel-size", 2, "--teacher-placement", "separate"]
    layout += ["--teacher-tensor-model-parallel-size", 2]
    text = said(tmp_path / "r", *flags, *layout, world_size=6)
    for line in (
        "student: 4 ranks = TP 1 x PP 2 x DP 2",
        "  stage 1, replica 1: ranks 3",
        "teacher: 2 ranks = TP 2 x PP 1 x DP 1",
        "  stage 0, replica 0: ranks 4-5",
        "losses from step 11 on: 0.5 x cross-entropy; each brought to one size:",
        "  2 x vanilla (temperature 2)",
        "  1 x hidden-states",
        # the final hidden state and those of 4 layers, 64 numbers of 4 bytes; 4 headers of 64 bytes for 32 tokens
        "bridge: 1,288 bytes a token (hidden), 4 ahead",
    ):
        assert line in text.splitlines(), text
    assert ": a palm of 6 of 6 layers x 64 after 3840 tokens, 0.00 GiB a rank" in text
    (total,) = re.findall(r"FLOPs: (\S+) ", text)
    (own, share) = re.findall(r"  of these the teacher: (\S+) \((\S+)%\)", text)[0]
    # forward of 6 layers in 30 of 40 steps beside 3 times that of 6 and then 4 layers
    assert float(own) / float(total) == pytest.approx(float(share) / 100, abs=1e-3)
    assert 20 < float(share) < 30
    here = said(tmp_path / "r", *flags, "--teacher-placement", "colocated")
    assert "teacher: in the student's processes" in here and "bridge" not in here.split("losses")[1]


def test_a_teacher_that_does_not_fit_is_said(base_run: Path, tmp_path: Path) -> None:
    flags = [
        "--train-iters",
        4,
        "--dry-run",
        "--seq-length",
        32,
        "--load",
        base_run,
        "--teacher-placement",
        "colocated",
    ]
    with pytest.raises(ConfigError, match="did you mean minilm"):
        said(tmp_path / "r", *flags, "--loss", "minlim")
