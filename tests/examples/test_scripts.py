"""The scripts of the papers' experiments say what the papers say; nothing is trained here."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_distill.config.distillation_cost import METHODS as LOSSES
from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.planning.experiment import costs
from tests.support.runs import ROOT, environment

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted([*EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.sbatch")])
SOURCED = ("environment.sh", "launch.sh", "papers.sh")
PRETRAIN = {"180m": 6e-4, "300m": 3e-4, "610m": 2.5e-4, "1.1b": 2e-4}  # arXiv:2305.14864, Table 1: peak learning rate
COMPRESS = {"300m": ("max-gap", 3e-5), "1.1b": ("input", 2e-5)}  # the same, v2: where, and peak learning rate
FLOPS = {  # Table 4 of v2, 1e18: teacher-free, distilled
    "300m": ("21.22", "33.31"),
    "1.1b": ("72.52", "116.76"),
}
METHODS = {name: losses for name, losses in LOSSES.items() if losses}
LAYOUTS = ["max-gap", "input", "output", "both", "middle", "alt-input", "alt-output", "alt-both", "alt-middle"]


def call(script: str, *arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script of examples/, in the environment of the tests, on a machine with one GPU unless GPUS says more."""
    given = {
        "DATA",
        "TOKENIZER",
        "VALID_DATA",
        "BASE",
        "RUNS",
        "OUT",
        "SCALE",
        "FLAVOUR",
        "NODES",
        "NODE_RANK",
        "SEEDS",
    }
    given |= {"MASTER_ADDR", "LAYOUT", "MODELS", "CHECKPOINTS", "TASKS", "TASK_DATA", "WORLD_SIZE"}
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


def planned(script: str, *arguments: str, **variables: str) -> dict[str, RunConfig]:
    """What the script would start, by the names of the runs."""
    done = call(script, *arguments, "--dry-run", **{"RUNS": "no-such-folder"} | variables)
    assert done.returncode == 0, done.stderr
    commands = [line.split("pretrain_distill.py ")[1] for line in done.stdout.splitlines() if line.startswith("+ ")]
    configs = [parse(RunConfig, [*shlex.split(command), "--dry-run"]) for command in commands]
    assert commands, done.stdout
    return {Path(config.checkpoint.save).name: config for config in configs}


def only(script: str, *arguments: str, **variables: str) -> RunConfig:
    """The last run that the script would start: what comes before is what it is made from."""
    return list(planned(script, *arguments, **variables).values())[-1]


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
    if script.name not in SOURCED:
        assert script.read_text().startswith("#!/usr/bin/env bash\n#")
        assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("size", PRETRAIN)
def test_pretraining(size: str) -> None:
    config = only(f"pretrain/{size}.sh")
    check_common(config, PRETRAIN[size])
    assert config.model.model == f"palm-{size}-paper"
    assert (config.training.train_tokens, config.optimizer.lr_warmup_tokens) == ("160B", "4B")
    assert config.pruning.pruning_layout is None
    assert config.logging.label == (f"model={size.upper()}", "checkpoint=160B")
    assert only(f"pretrain/{size}.sh", TOKENS="20B").training.train_tokens == "20B"


def test_checkpoints_on_the_way_are_kept() -> None:
    assert only("pretrain/300m.sh", TOKENS="320B").checkpoint.save_retain_interval == 20_000  # 40B
    assert only("pretrain/180m.sh", TOKENS="20B").checkpoint.save_retain_interval == 0


def test_another_flavour() -> None:
    assert only("pretrain/300m.sh", FLAVOUR="").model.model == "palm-300m"


@pytest.mark.parametrize("size", COMPRESS)
def test_compression(size: str) -> None:
    layout, learning_rate = COMPRESS[size]
    runs = planned(f"compress/{size}.sh")
    assert list(runs) == [f"{size}-160B", f"{size}-160B.{layout}-12"]
    config = runs[f"{size}-160B.{layout}-12"]
    check_common(config, learning_rate)
    assert config.checkpoint.load == f"no-such-folder/paper/{size}-160B"
    assert (config.training.train_tokens, config.optimizer.lr_warmup_tokens) == ("20B", "800M")
    pruning = config.pruning
    assert (pruning.pruning_layout, pruning.pruning_num_layers) == (layout, 12)
    assert (pruning.pruning_seed_tokens, pruning.pruning_gap_tokens) == ("1B", "0")
    assert config.logging.label == (f"model={size.upper()}", "checkpoint=160B", "gap=0")


@pytest.mark.parametrize("size", COMPRESS)
def test_the_main_comparison_costs_what_the_papers_print(size: str) -> None:
    done = call(f"main/{size}.sh", "--dry-run", RUNS="no-such-folder")
    flags = [line.split("pretrain_distill.py ")[1] for line in done.stdout.splitlines() if line.startswith("+ ")]
    found = costs(flags, ranks=1)
    layout = COMPRESS[size][0]
    names = [
        f"{size}-160B.{layout}-12{'' if method == 'teacher-free' else f'.{method}'}"
        for method in ("teacher-free", *METHODS)
    ]
    assert [run.name for run in found] == [f"{size}-160B", *names]
    own, distilled = FLOPS[size]
    assert [f"{run.paper_flops / 1e18:.2f}" for run in found[1:]] == [own, distilled, distilled, distilled]
    assert all(run.name in done.stdout.splitlines()[len(flags) + 2 + i] for i, run in enumerate(found))


@pytest.mark.parametrize("size", COMPRESS)
@pytest.mark.parametrize("method", METHODS)
def test_distillation(method: str, size: str) -> None:
    config, plain = only(f"kd/{method}-{size}.sh"), only(f"compress/{size}.sh")
    assert config.distillation.loss == METHODS[method] and config.distillation.lm_weight == 1
    assert config.teacher.placement == "colocated"
    assert (config.training, config.optimizer, config.pruning) == (plain.training, plain.optimizer, plain.pruning)
    assert config.checkpoint.save == f"{plain.checkpoint.save}.{method}"


def test_where() -> None:
    runs = planned("ablations/where.sh", MODELS="300m")
    eight = [f"300m-{checkpoint}.{layout}-8" for checkpoint in ("80B", "320B") for layout in LAYOUTS]
    twelve = [f"300m-160B.{layout}-12" for layout in ("max-gap", "input", "output", "middle", "both")]
    assert [name for name in runs if "." in name] == [*eight, *twelve]
    assert runs["300m-80B.max-gap-8"].checkpoint.load == "no-such-folder/paper/300m-320B/checkpoints/iter_0040000"
    assert runs["300m-320B.max-gap-8"].checkpoint.load == "no-such-folder/paper/300m-320B"


def test_when() -> None:
    runs = planned("ablations/when.sh", MODELS="300m")
    gaps = ["0", "100M", "500M", "1B"]
    assert [run.pruning.pruning_gap_tokens for name, run in runs.items() if "max-gap" in name] == gaps
    assert [run.pruning.pruning_gap_tokens for name, run in runs.items() if "80B.input-8" in name] == gaps
    assert runs["300m-160B.max-gap-12.gap-1B"].logging.label[2] == "gap=1B"


def test_how_much() -> None:
    runs = planned("ablations/how-much.sh")
    small = [f"300m-{checkpoint}.input-{n}" for checkpoint in ("40B", "80B", "160B", "320B") for n in (4, 8, 12)]
    large = [f"1.1b-{checkpoint}.input-{n}" for checkpoint in ("40B", "80B", "160B") for n in (4, 8, 12)]
    assert [name for name in runs if "input" in name] == [*small, *large]


def test_lambda() -> None:
    runs = planned("ablations/lambda.sh")
    taught = [run for run in runs.values() if run.distillation.loss]
    assert [run.distillation.losses()[0].weight for run in taught] == [1, 2, 4, 8]
    assert set(runs) > {"1.1b-160B.input-12.vanilla", "1.1b-160B.input-12.vanilla-lambda-8"}


def test_no_lm() -> None:
    runs = planned("ablations/no-lm.sh")
    assert [run.distillation.lm_weight for run in runs.values() if run.distillation.loss] == [1, 0, 1, 0]


def test_from_scratch() -> None:
    runs = planned("ablations/from-scratch.sh", MODELS="1.1b")
    assert list(runs) == ["1.1b-160B", "1.1b-160B.input-12", "610m-20B", "610m-160B"]
    assert runs["610m-20B"].checkpoint.load is None


def test_the_first_version() -> None:
    runs = planned("main/v1.sh")
    assert [name for name in runs if "." in name.removeprefix("1.1b")] == [
        *("300m-320B.input-12", "300m-320B.input-12.vanilla", "1.1b-160B.input-12", "1.1b-160B.input-12.vanilla"),
    ]


@pytest.mark.parametrize("scale", ["tiny", "laptop", "small"])
@pytest.mark.parametrize(
    "script",
    ["main/300m", "main/1.1b", "main/v1", *(f"ablations/{path.stem}" for path in EXAMPLES.glob("ablations/*"))],
)
def test_every_experiment_can_be_planned_at_every_scale(script: str, scale: str) -> None:
    done = call(f"{script}.sh", "--dry-run", SCALE=scale, RUNS="no-such-folder")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FLOPs" in done.stdout and "disk" in done.stdout
    assert not Path("no-such-folder").exists()


def test_seeds() -> None:
    runs = planned("compress/300m.sh", SEEDS="6199 7")
    assert list(runs)[1:] == ["300m-160B.max-gap-12", "300m-160B.max-gap-12.seed-7"]
    assert [run.training.seed for run in runs.values()][1:] == [6199, 7]


def test_a_separate_teacher() -> None:
    config = only("kd/minilm-1.1b.sh", TEACHER="separate", TEACHER_DP="4", GPUS="8")
    assert (config.teacher.placement, config.teacher.num_ranks) == ("separate", 4)


def test_what_follows_the_script_wins() -> None:
    config = only("pretrain/300m.sh", "--lr", "0.5", "--tensor-model-parallel-size", "1")
    assert config.optimizer.lr == 0.5


def test_two_nodes_are_sixteen_ranks() -> None:
    done = call("compress/1.1b.sh", "--dry-run", NODES="2", GPUS="8", RUNS="no-such-folder")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "+ torchrun --nnodes 2 --nproc-per-node 8 pretrain_distill.py --model palm-1.1b-paper "
    )
    assert "of 16 x a100-80gb" in done.stdout


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SCALE": "huge"}, "SCALE=huge is not known; it is paper, small, laptop or tiny"),
        ({"GAP": "7", "SCALE": "tiny"}, "GAP=7 is not known; it is 0, 100M, 500M or 1B"),
        ({"CHECKPOINT": "7B"}, "7B tokens are not known; it is 20B, 40B, 80B, 160B or 320B"),
        (
            {"SCALE": "tiny", "TASK_DATA": "nowhere"},
            "TASK_DATA=nowhere has no file such as piqa_validation.jsonl; docs/evaluation.md says what belongs there",
        ),
        ({"JOBS": "0"}, "JOBS=0 must be a whole number of at least 1; change it, or unset it for the default"),
        ({"JOBS": "-1"}, "JOBS=-1 must be a whole number of at least 1; change it, or unset it for the default"),
        ({"NODES": "0"}, "NODES=0 must be a whole number of at least 1; change it, or unset it for the default"),
        ({"NODES": "abc"}, "NODES=abc must be a whole number of at least 1; change it, or unset it for the default"),
        ({"GPUS": "1.5"}, "GPUS=1.5 must be a whole number of at least 0; change it, or unset it for the default"),
        (
            {"GPUS": "HOME[$(touch injected)]"},
            "GPUS=HOME[$(touch injected)] must be a whole number of at least 0; change it, or unset it for the default",
        ),
        ({"BASE": "nowhere"}, "cost.py: --load nowhere is not there, and no run before it makes it"),
    ],
)
def test_wrong_settings(variables: dict[str, str], sentence: str) -> None:
    done = call("compress/300m.sh", "--dry-run", **variables)
    assert (done.returncode, done.stderr) == (2, sentence + "\n")
    assert not (ROOT / "injected").exists()


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
    """A folder with a `python` and a `torchrun` that say how they were called and leave what a finished run leaves."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # The output of an evaluation is not shown, so it is told elsewhere.
    tells = f'[ "$1" = tools/evaluate.py ] && shift && echo "$*" >> {tmp_path}/evaluated\n'
    ends = 'while [ $# -gt 0 ]; do [ "$1" = --save ] && mkdir -p "$2" && echo {} > "$2/result.json"; shift; done\n'
    for name in ("python", "torchrun"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} WORLD_SIZE=$WORLD_SIZE $*"\n{tells}{ends}')
        path.chmod(0o755)
    return folder


def test_one_rank_needs_no_torchrun(stubs: Path, tmp_path: Path) -> None:
    done = call("pretrain/300m.sh", path=stubs, DATA="c4", TOKENIZER="gpt2", TASKS="", RUNS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, report = done.stdout.splitlines()
    assert first.startswith(
        "python WORLD_SIZE= pretrain_distill.py --model palm-300m-paper --data-path c4 --tokenizer gpt2"
    )
    assert "--dry-run" not in first
    assert report == f"python WORLD_SIZE= tools/report.py {tmp_path}/paper --output {tmp_path}/paper/report"


def test_one_node_finds_its_ranks_by_itself(stubs: Path, tmp_path: Path) -> None:
    done = call("pretrain/300m.sh", path=stubs, DATA="c4", GPUS="4", TASKS="", RUNS=str(tmp_path))
    assert done.stdout.startswith("torchrun WORLD_SIZE= --standalone --nproc-per-node 4 pretrain_distill.py --model")


def test_nodes_of_a_cluster_meet_at_the_first(stubs: Path, tmp_path: Path) -> None:
    variables = {"NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node0", "GPUS": "8", "DATA": "c4", "RESTARTS": "5"}
    script = "examples/pretrain/1.1b.sh"
    done = call("cluster/torchrun.sh", script, "--seed", "7", path=stubs, RUNS=str(tmp_path), **variables)
    assert done.returncode == 0, done.stderr
    assert "--nnodes 2 --node-rank 1 --nproc-per-node 8 --max-restarts 5 --rdzv-backend c10d" in done.stdout
    assert "--rdzv-endpoint node0:29500" in done.stdout
    assert done.stdout.endswith(" --seed 7\n")  # and no report, which the first node writes


def test_finished_runs_are_kept_and_stopped_ones_end_the_script(stubs: Path, tmp_path: Path) -> None:
    settings = {"DATA": "c4", "TASKS": "", "RUNS": str(tmp_path), "SCALE": "tiny"}
    base = tmp_path / "tiny/300m-160B"
    base.mkdir(parents=True)
    (base / "result.json").write_text("{}")
    done = call("compress/300m.sh", path=stubs, **settings)
    assert done.returncode == 0, done.stderr
    kept, started, _ = done.stdout.splitlines()
    assert kept == f"{base} is finished"
    assert f"--load {base} " in started and "--pruning-layout max-gap" in started
    (stubs / "python").write_text("#!/bin/sh\nexit 0\n")
    done = call("compress/1.1b.sh", path=stubs, **settings)
    assert done.returncode == 143
    assert done.stderr == f"{tmp_path}/tiny/1.1b-160B was stopped; the same command goes on from there\n"


SIDE_BY_SIDE = {"GPUS": "0", "JOBS": "2", "DATA": "c4", "TASKS": "", "SCALE": "tiny"}


def test_without_a_gpu_runs_go_side_by_side(stubs: Path, tmp_path: Path) -> None:
    done = call("ablations/where.sh", path=stubs, RUNS=str(tmp_path), **SIDE_BY_SIDE)
    assert done.returncode == 0, done.stderr
    base, *others, report = done.stdout.splitlines()
    assert base.startswith("python ") and "--load" not in base  # alone: the others start from it
    assert len(others) == 14 and all(line.endswith(".log") for line in others)
    assert report.startswith("python WORLD_SIZE= tools/report.py")
    logs = sorted((tmp_path / "tiny/logs").iterdir())
    assert len(logs) == 14 and all("--load" in log.read_text() for log in logs)


def test_one_that_fails_ends_them(stubs: Path, tmp_path: Path) -> None:
    path = stubs / "python"
    fails = 'case "$*" in *alt-input*) echo "there is no room" >&2; exit 7;; esac\n'
    path.write_text(path.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{fails}"))
    done = call("ablations/where.sh", path=stubs, RUNS=str(tmp_path), **SIDE_BY_SIDE)
    assert (done.returncode, done.stderr) == (7, "there is no room\n")
    assert "tools/report.py" not in done.stdout and "output-12" not in done.stdout


def test_sigterm_reaches_all_of_them(stubs: Path, tmp_path: Path) -> None:
    path = stubs / "python"
    waits = 'case "$*" in *--load*) trap "echo saved; exit 0" TERM; sleep 60 & wait;; esac\n'
    path.write_text(path.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{waits}"))
    variables = {
        "NO_VENV": "1",
        "RUNS": str(tmp_path),
        "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}",
    } | SIDE_BY_SIDE
    command = ["bash", str(EXAMPLES / "ablations/when.sh")]
    with subprocess.Popen(command, env=environment() | variables, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        for _ in range(3):  # the base, and two that start
            script.stdout.readline()
        logs = tmp_path / "tiny/logs"
        while len(list(logs.glob("*"))) < 2:
            time.sleep(0.05)
        time.sleep(0.3)
        script.terminate()
        assert script.wait(30) == 143
    assert [log.read_text().splitlines()[0] for log in sorted(logs.iterdir())] == ["saved", "saved"]


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_a_quickstart_that_is_stopped_goes_no_further(finished: int, stubs: Path, tmp_path: Path) -> None:
    """A run that was asked to stop exits with 0 and has no result.json."""
    ends = f'[ "$(ls {tmp_path}/*/result.json 2> /dev/null | wc -l)" = {finished} ] || touch "$save/result.json"'
    finds = 'for word; do [ "$last" = --save ] && save=$word; last=$word; done'
    runs = f'case "$1" in pretrain*) {finds}; mkdir -p "$save"; {ends};; esac'
    (stubs / "python").write_text(f'#!/bin/sh\n{runs}\necho "$1"\n')
    done = call("quickstart.sh", path=stubs, OUT=str(tmp_path))
    started = [line for line in done.stdout.splitlines() if line.endswith(".py")]
    assert started.count("pretrain_distill.py") == min(finished + 1, 3)
    assert done.returncode == (0 if finished == 3 else 130)
    assert ("tools/report.py" in started) == (finished == 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_the_script_alone_reaches_torchrun(number: signal.Signals, stubs: Path, tmp_path: Path) -> None:
    waits = 'trap "echo saved; exit 0" TERM; echo "waits up to ${TORCH_ELASTIC_SHUTDOWN_TIMEOUT} s"\n'
    waits += "sleep 60 > /dev/null & wait"
    (stubs / "torchrun").write_text(f"#!/bin/sh\n{waits}\n")
    variables = {"NO_VENV": "1", "RUNS": str(tmp_path), "GPUS": "2", "DATA": "c4", "TASKS": "", "SCALE": "tiny"}
    variables["PATH"] = f"{stubs}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(EXAMPLES / "pretrain/300m.sh")]
    with subprocess.Popen(command, env=environment() | variables, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "waits up to 110 s\n"
        script.send_signal(number)
        assert script.wait(30) == 143
        assert script.stdout.read() == "saved\n"


def test_every_run_is_scored_once_on_the_tasks_that_are_there(stubs: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("piqa_validation.jsonl", "arc_easy_validation.jsonl.gz"):
        (tasks / name).touch()
    for name in ("300m-160B", "300m-80B.max-gap-12", "300m-80B.max-gap-12.seed-6200"):
        run = tmp_path / "tiny" / name
        run.mkdir(parents=True)
        (run / "result.json").write_text("{}")
        (run / "latest").write_text("iter_0000096\n")
    settings = {
        "DATA": "c4",
        "TASK_DATA": str(tasks),
        "LIMIT": "5",
        "SCALE": "tiny",
        "RUNS": str(tmp_path),
        "CHECKPOINT": "80B",
        "SEEDS": "6199 6200",
    }
    done = call("compress/300m.sh", path=stubs, **settings)
    assert done.returncode == 0, done.stderr
    scored = [line.removeprefix("scoring ") for line in done.stdout.splitlines() if line.startswith("scoring")]
    base = f"{tmp_path}/tiny/300m-160B"
    compressed = f"{tmp_path}/tiny/300m-80B.max-gap-12"
    assert scored == [base, f"{base}/checkpoints/iter_0000048", compressed, f"{compressed}.seed-6200"]
    assert (tmp_path / "evaluated").read_text().splitlines() == [
        f"{path} --keep --tasks arc_easy piqa --data {tasks} --limit 5" for path in scored
    ]


@pytest.mark.parametrize("code", [1, 2])
def test_a_task_that_cannot_run_is_no_success(stubs: Path, tmp_path: Path, code: int) -> None:
    (tmp_path / "piqa_validation.jsonl").touch()
    python = (stubs / "python").read_text()
    fails = f'[ "$1" = tools/evaluate.py ] && exit {code}\n'
    (stubs / "python").write_text(python.replace("#!/bin/sh\n", f"#!/bin/sh\n{fails}"))
    settings = {"DATA": "c4", "TASK_DATA": str(tmp_path), "SCALE": "tiny", "RUNS": str(tmp_path), "JOBS": "1"}
    done = call("pretrain/300m.sh", path=stubs, **settings)
    assert done.returncode == code
    assert ("tools/report.py" in done.stdout) == (code == 2)  # the page is made of what there is
    assert ("the same command takes those again" in done.stderr) == (code == 2)


def test_wrong_flags_stop_a_cluster_before_it_starts(stubs: Path) -> None:
    (stubs / "python").write_text("#!/bin/sh\nexit 2\n")
    done = call("pretrain/1.1b.sh", path=stubs, NODES="2", NODE_RANK="0", MASTER_ADDR="n", GPUS="8", DATA="c4")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_node_must_know_its_number(stubs: Path) -> None:
    done = call("cluster/torchrun.sh", "examples/pretrain/1.1b.sh", path=stubs, NODES="2", MASTER_ADDR="node0")
    assert done.returncode != 0
    assert "NODE_RANK: which of them this is, from 0" in done.stderr
