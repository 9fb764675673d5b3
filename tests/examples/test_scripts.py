"""The scripts of the papers' experiments say what the papers say; nothing is trained here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_distill.config.distillation_cost import METHODS as LOSSES
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from tests.support.runs import ROOT, environment

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted([*EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.sbatch")])
PRETRAIN = {  # arXiv:2305.14864, Table 1: parameters, layers, width, peak learning rate
    "180m": ("177,514,496", 12, 1024, 6e-4),
    "300m": ("303,515,648", 24, 1024, 3e-4),
    "610m": ("606,687,232", 12, 2048, 2.5e-4),
    "1.1b": ("1,110,347,776", 24, 2048, 2e-4),
}
COMPRESS = {  # the same, v2: layers that leave, parameters before and after, learning rate, FLOPs of Table 4
    "300m": ((1, 3, 5, 7, 9, 11, 12, 14, 16, 18, 20, 22), "303,515,648", "177,514,496", 3e-5, "2.122e+19"),
    "1.1b": (tuple(range(1, 13)), "1,110,347,776", "606,687,232", 2e-5, "7.252e+19"),
}
METHODS = {name: losses for name, losses in LOSSES.items() if losses}


def call(script: str, *arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script of examples/, in the environment of the tests, on a machine with one GPU unless GPUS says more."""
    given = {"DATA", "TOKENIZER", "BASE", "RUNS", "SCALE", "FLAVOUR", "NODES", "NODE_RANK", "MASTER_ADDR", "LAYOUT"}
    inherited = {k: v for k, v in environment().items() if k not in given}
    folders = [str(path)] if path else []
    search = os.pathsep.join([*folders, str(Path(sys.executable).parent), inherited["PATH"]])
    return subprocess.run(
        ["bash", str(EXAMPLES / script), *arguments],
        env=inherited | {"NO_VENV": "1", "GPUS": "1", "PATH": search} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def dry_run(script: str, *arguments: str, **variables: str) -> tuple[RunConfig, list[str]]:
    """What the script would start, as a configuration, and the lines it prints."""
    done = call(script, *arguments, "--dry-run", **variables)
    assert done.returncode == 0, done.stderr
    command, *lines = done.stdout.splitlines()
    return parse(RunConfig, shlex.split(command.split("pretrain_distill.py ")[1])), lines


def check_common(config: RunConfig, learning_rate: float) -> None:
    """What all runs of the papers share."""
    optimizer, training = config.optimizer, config.training
    assert (optimizer.optimizer, optimizer.beta1, optimizer.beta2) == ("lion", 0.9, 0.95)
    assert (optimizer.weight_decay, optimizer.decay_semantics, optimizer.decay_embeddings) == (1e-4, "schedule", False)
    assert (optimizer.lr, optimizer.lr_decay_style, optimizer.min_lr_ratio) == (learning_rate, "cosine", 0.1)
    assert optimizer.clip_grad == 1.0
    assert (config.data.seq_length, training.global_batch_size, training.nominal_tokens) == (2048, 1024, True)


@pytest.mark.parametrize("script", SCRIPTS, ids=[p.name if p.parent == EXAMPLES else str(p)[-20:] for p in SCRIPTS])
def test_bash_understands_it(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if script.name not in ("environment.sh", "launch.sh", "method.sh"):  # these are sourced
        assert script.read_text().startswith("#!/usr/bin/env bash\n#")
        assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("size", PRETRAIN)
def test_pretraining(size: str) -> None:
    parameters, layers, width, learning_rate = PRETRAIN[size]
    config, lines = dry_run(f"pretrain/{size}.sh", FLAVOUR="-paper")
    check_common(config, learning_rate)
    assert f"model: {parameters} parameters, {layers} layers x {width}, 16 heads, 50,304 vocabulary rows" in lines
    assert "schedule: 80,000 steps of 2,097,152 tokens (167,772,160,000), warm-up 2,000" in lines
    assert config.pruning.pruning_layout is None


@pytest.mark.parametrize("size", COMPRESS)
def test_compression(size: str) -> None:
    removed, before, after, learning_rate, flops = COMPRESS[size]
    config, lines = dry_run(f"compress/{size}.sh", FLAVOUR="-paper", RUNS="no-such-folder")
    check_common(config, learning_rate)
    assert any(line.startswith(f"model: {before} parameters, 24 layers") for line in lines)
    assert "schedule: 10,000 steps of 2,097,152 tokens (20,971,520,000), warm-up 400" in lines
    assert f"  before step 501: layers {', '.join(map(str, removed))}" in lines
    kept = ", ".join(str(i) for i in range(24) if i not in removed)
    assert f"  12 layers stay: {kept} ({after} parameters)" in lines
    assert any(f"{flops} as the papers count" in line for line in lines)


@pytest.mark.parametrize(("gap", "last"), [("100M", "1,051"), ("500M", "3,251"), ("1B", "6,001")])
def test_when_layers_leave(gap: str, last: str) -> None:
    _, lines = dry_run("compress/1.1b.sh", GAP=gap, RUNS="no-such-folder")
    assert [line for line in lines if "before step" in line][-1] == f"  before step {last}: layers 12"


def test_where_and_how_many(tmp_path: Path) -> None:
    config, lines = dry_run("compress/300m.sh", LAYOUT="alt-output", REMOVE="8", RUNS=str(tmp_path))
    assert "  before step 501: layers 8, 10, 12, 14, 16, 18, 20, 22" in lines
    assert config.checkpoint.save == f"{tmp_path}/palm-300m-alt-output-8-0"


@pytest.mark.parametrize("size", COMPRESS)
@pytest.mark.parametrize("method", METHODS)
def test_distillation(method: str, size: str) -> None:
    kd_flops = {"300m": "3.331e+19", "1.1b": "1.168e+20"}[size]  # Table 4, the same for all methods
    config, lines = dry_run(f"kd/{method}-{size}.sh", FLAVOUR="-paper", RUNS="no-such-folder")
    plain, _ = dry_run(f"compress/{size}.sh", FLAVOUR="-paper", RUNS="no-such-folder")
    assert config.distillation.loss == METHODS[method] and config.distillation.lm_weight == 1
    assert config.teacher.placement == "colocated"
    assert (config.training, config.optimizer, config.pruning) == (plain.training, plain.optimizer, plain.pruning)
    assert config.checkpoint.save == f"no-such-folder/palm-{size}-paper-{method}"
    assert any(f"{kd_flops} as the papers count" in line for line in lines)


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("lambda", [f"vanilla-lambda-{weight}" for weight in (1, 2, 4, 8)]),
        ("no-lm", ["minilm-no-lm", "homotopic-no-lm"]),
    ],
)
def test_ablations(script: str, wanted: list[str]) -> None:
    done = call(f"ablations/{script}.sh", "--dry-run", RUNS="no-such-folder")
    assert done.returncode == 0, done.stderr
    commands = [line.split("pretrain_distill.py ")[1] for line in done.stdout.splitlines() if line.startswith("+ ")]
    configs = [parse(RunConfig, shlex.split(command)) for command in commands]
    assert [config.checkpoint.save for config in configs] == [f"no-such-folder/palm-1.1b-{name}" for name in wanted]
    if script == "lambda":
        assert [config.distillation.losses()[0].weight for config in configs] == [1, 2, 4, 8]
    else:
        assert all(config.distillation.lm_weight == 0 for config in configs)


def test_a_separate_teacher() -> None:
    config, _ = dry_run("kd/minilm-1.1b.sh", TEACHER="separate", TEACHER_DP="4", GPUS="8", RUNS="no-such-folder")
    assert (config.teacher.placement, config.teacher.num_ranks) == ("separate", 4)


def test_what_follows_the_script_wins() -> None:
    config, _ = dry_run("pretrain/300m.sh", "--lr", "0.5", "--tensor-model-parallel-size", "1")
    assert config.optimizer.lr == 0.5


def test_two_nodes_are_sixteen_ranks() -> None:
    done = call("compress/1.1b.sh", "--dry-run", NODES="2", GPUS="8", RUNS="no-such-folder")
    assert done.returncode == 0, done.stderr
    command = "+ torchrun --nnodes 2 --nproc-per-node 8 pretrain_distill.py --model palm-1.1b "
    assert done.stdout.startswith(command)
    assert "student: 16 ranks = TP 1 x PP 1 x DP 16" in done.stdout
    assert "micro-batches a step and data-parallel rank: 8" in done.stdout


@pytest.mark.parametrize("script", ["pretrain/300m.sh", "compress/1.1b.sh"])
def test_an_unknown_scale(script: str) -> None:
    done = call(script, "--dry-run", SCALE="huge")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "SCALE=huge is not known; it is paper or tiny\n"


@pytest.mark.parametrize("script", ["pretrain/300m.sh", "compress/1.1b.sh"])
def test_no_data(script: str) -> None:
    done = call(script)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("DATA is not set: give the prefix of a corpus that tools/preprocess_data.py made")
    assert done.stderr.count("\n") == 1


def test_flags_that_are_wrong(tmp_path: Path) -> None:
    done = call("pretrain/300m.sh", "--num-layer", "3", DATA="c", RUNS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "pretrain_distill.py: there is no flag --num-layer; did you mean --num-layers?\n"


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with a `python` and a `torchrun` that only say how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "torchrun"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} WORLD_SIZE=$WORLD_SIZE $*"\n')
        path.chmod(0o755)
    return folder


def test_one_rank_needs_no_torchrun(stubs: Path) -> None:
    done = call("pretrain/300m.sh", path=stubs, DATA="c4", TOKENIZER="gpt2", WORLD_SIZE="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "python WORLD_SIZE= pretrain_distill.py --model palm-300m --data-path c4 --tokenizer gpt2"
    )
    assert "--dry-run" not in done.stdout


def test_one_node_finds_its_ranks_by_itself(stubs: Path) -> None:
    done = call("pretrain/300m.sh", path=stubs, DATA="c4", GPUS="4", WORLD_SIZE="")
    assert done.stdout.startswith("torchrun WORLD_SIZE= --standalone --nproc-per-node 4 pretrain_distill.py --model")


def test_nodes_of_a_cluster_meet_at_the_first(stubs: Path) -> None:
    variables = {"NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node0", "GPUS": "8", "DATA": "c4", "RESTARTS": "5"}
    script = "examples/pretrain/1.1b.sh"
    done = call("cluster/torchrun.sh", script, "--seed", "7", path=stubs, **variables)
    assert done.returncode == 0, done.stderr
    assert "--nnodes 2 --node-rank 1 --nproc-per-node 8 --max-restarts 5 --rdzv-backend c10d" in done.stdout
    assert "--rdzv-endpoint node0:29500" in done.stdout
    assert done.stdout.endswith(" --seed 7\n")


def test_wrong_flags_stop_a_cluster_before_it_starts(stubs: Path) -> None:
    (stubs / "python").write_text("#!/bin/sh\nexit 2\n")
    done = call("pretrain/1.1b.sh", path=stubs, NODES="2", NODE_RANK="0", MASTER_ADDR="n", GPUS="8", DATA="c4")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_node_must_know_its_number(stubs: Path) -> None:
    done = call("cluster/torchrun.sh", "examples/pretrain/1.1b.sh", path=stubs, NODES="2", MASTER_ADDR="node0")
    assert done.returncode != 0
    assert "NODE_RANK: which of them this is, from 0" in done.stderr
