"""Ranks as tensor x pipeline x data, and checks that need two sections."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse, to_flags
from megatron_distill.config.model import PRESETS, ModelConfig
from megatron_distill.config.run import Layout, RunConfig, layout
from megatron_distill.config.sections import OptimizerConfig, TrainingConfig


def config(*flags: object) -> RunConfig:
    """A run that is never started."""
    return parse(RunConfig, ["--data-path", "c", "--save", "r", "--train-iters", "5", *map(str, flags)])


@pytest.mark.parametrize(
    ("world", "tp", "pp", "micro", "batch", "wanted"),
    [
        (1, 1, 1, 1, 1, (1, 1)),
        (1, 1, 1, 2, 64, (1, 32)),
        (8, 1, 1, 2, 64, (8, 4)),
        (8, 2, 1, 2, 64, (4, 8)),
        (8, 2, 2, 4, 8, (2, 1)),
        (8, 4, 2, 1, 3, (1, 3)),
        (256, 8, 4, 2, 1024, (8, 64)),
    ],
)
def test_what_is_left_of_the_world_is_data_parallel(
    world: int, tp: int, pp: int, micro: int, batch: int, wanted: tuple[int, int]
) -> None:
    flags = ("--tensor-model-parallel-size", tp, "--pipeline-model-parallel-size", pp)
    run = config(*flags, "--micro-batch-size", micro, "--global-batch-size", batch)
    found = layout(run, world, num_attention_heads=16, padded_vocab_size=50304)
    assert found == Layout(tensor=tp, pipeline=pp, data=wanted[0], num_microbatches=wanted[1])
    assert found.world_size == world


@pytest.mark.parametrize(
    ("flags", "world", "says"),
    [
        (("--tensor-model-parallel-size", 3), 3, "--num-attention-heads 4 must be a multiple of --tensor.* 3"),
        (("--tensor-model-parallel-size", 4), 4, "the padded vocabulary 50 must be a multiple of --tensor.* 4"),
        (("--tensor-model-parallel-size", 2), 5, "5 ranks.* 2 x --pipeline-model-parallel-size 1 = 2"),
        (("--pipeline-model-parallel-size", 4), 6, "6 ranks.* 1 x --pipeline-model-parallel-size 4 = 4"),
        (("--pipeline-model-parallel-size", 2), 1, "1 rank, which"),
        (("--global-batch-size", 6), 4, "--global-batch-size 6 .* --micro-batch-size 1 x data-parallel size 4 = 4"),
        (("--global-batch-size", 6, "--micro-batch-size", 4), 1, "--micro-batch-size 4 x .* 1 = 4"),
    ],
)
def test_ranks_that_do_not_divide_are_said(flags: tuple[object, ...], world: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        layout(config(*flags), world, num_attention_heads=4, padded_vocab_size=50)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--sequence-parallel",), "--sequence-parallel needs --tensor-model-parallel-size of at least 2"),
        (
            ("--sequence-parallel", "--tensor-model-parallel-size", 2, "--seq-length", 33),
            "--seq-length 33 must be a multiple of --tensor-model-parallel-size 2",
        ),
        (("--seq-length", 2049), "--seq-length 2049 is longer than --max-position-embeddings 2048; raise the latter"),
        (("--seq-length", 1), "--seq-length 1 must be at least 2"),
        (("--pruning-num-layers", 2), "--pruning-num-layers needs --pruning-layout"),
        (("--lr-warmup-iters", 1, "--lr-warmup-tokens", 9), "at most one of --lr-warmup-iters and --lr-warmup-tokens"),
        (("--keep-checkpoints", -1), "--keep-checkpoints -1 must be at least 0"),
        (("--log-interval", 0), "--log-interval 0 must be at least 1"),
        (("--tensor-model-parallel-size", 0), "--tensor-model-parallel-size 0 must be at least 1"),
    ],
)
def test_sections_that_contradict_are_said(flags: tuple[object, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(*flags)


def test_data_may_be_missing_in_a_dry_run_only() -> None:
    flags = ["--save", "r", "--train-iters", "5"]
    with pytest.raises(ConfigError, match="--data-path is missing"):
        parse(RunConfig, flags)
    assert parse(RunConfig, [*flags, "--dry-run"]).data.data_path is None


def test_exactly_one_length() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        TrainingConfig()
    with pytest.raises(ConfigError, match="exactly one"):
        TrainingConfig(train_iters=5, train_tokens="1M")


def test_lion_has_the_papers_defaults() -> None:
    found = OptimizerConfig()
    assert (found.optimizer, found.beta1, found.beta2, found.weight_decay) == ("lion", 0.9, 0.95, 1e-4)
    assert (found.decay_semantics, found.decay_embeddings, found.min_lr_ratio) == ("schedule", False, 0.1)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_named_size_is_a_whole_model(name: str) -> None:
    shape = ModelConfig(model=name).shape()
    assert shape.ffn_hidden_size == 2 * shape.hidden_size
    assert (shape.add_bias_linear, shape.qk_layernorm == "full") == (name.endswith("-paper"),) * 2


def test_a_config_is_plain_values_without_torch() -> None:
    code = (
        "import sys, json, dataclasses; sys.modules['torch'] = None; sys.modules['megatron'] = None\n"
        "from megatron_distill.config.flags import parse; from megatron_distill.config.run import RunConfig\n"
        "print(json.dumps(dataclasses.asdict(parse(RunConfig))))"
    )
    flags = " ".join(to_flags(config("--model", "palm-300m"))).split()
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"]["model"] == "palm-300m"
