"""The main job on a real GPU: the same model as on the CPU, every attention backend, pruning and exact resume."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.runs import ROOT, environment, result, rows, start, trace

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SMALL_MODEL = ["--num-layers", 6, "--hidden-size", 256, "--num-attention-heads", 4, "--vocab-size", 60]
RUN = ["--seq-length", 128, "--micro-batch-size", 4, "--global-batch-size", 8, "--log-interval", 1]
RUN += ["--train-iters", 20, "--eval-iters", 2, "--lr", 1e-3]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run)]


def test_bf16_on_the_gpu_is_fp32_on_the_cpu_up_to_rounding(corpus: Path, tmp_path: Path) -> None:
    flags = [*SMALL_MODEL, *RUN, "--data-path", corpus]
    start(*flags, "--save", tmp_path / "gpu")
    assert json.loads((tmp_path / "gpu" / "run.json").read_text())["device"] == torch.cuda.get_device_name()
    command = [sys.executable, "pretrain_distill.py", *map(str, flags), "--precision", "fp32"]
    without_gpu = environment() | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*command, "--save", tmp_path / "cpu"], check=True, cwd=ROOT, env=without_gpu, timeout=300)
    on_gpu, on_cpu = losses(tmp_path / "gpu"), losses(tmp_path / "cpu")
    assert on_gpu[0] == pytest.approx(on_cpu[0], rel=2e-3)
    assert on_gpu[-1] == pytest.approx(on_cpu[-1], rel=0.05)
    assert on_gpu[-1] < on_gpu[0] - 0.5


@pytest.mark.parametrize(("backend", "package"), [("flash", "flash_attn"), ("te", "transformer_engine")])
def test_attention_backends_agree(backend: str, package: str, corpus: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    flags = [*SMALL_MODEL, *RUN, "--data-path", corpus, "--train-iters", 4, "--attention-backend"]
    start(*flags, "sdpa", "--save", tmp_path / "sdpa")
    start(*flags, backend, "--save", tmp_path / backend)
    assert losses(tmp_path / backend) == pytest.approx(losses(tmp_path / "sdpa"), rel=2e-3)


def test_layers_leave_and_a_stopped_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    tokens = 8 * 128
    flags = [*SMALL_MODEL, *RUN, "--data-path", corpus, "--pruning-layout", "1,3", "--pruning-seed-tokens", 4 * tokens]
    flags += ["--pruning-gap-tokens", 3 * tokens]
    start(*flags, "--save", tmp_path / "whole")
    for stop in (3, 6):
        start(*flags, "--save", tmp_path / "parts", "--exit-interval", stop)
    start(*flags, "--save", tmp_path / "parts")
    assert result(tmp_path / "parts")["layers"] == [0, 2, 4, 5]
    flops = [b["flops"] - a["flops"] for a, b in pairwise(rows(tmp_path / "whole"))]
    assert flops[0] > flops[5] > flops[-1]
    for a, b in zip(trace(tmp_path / "parts"), trace(tmp_path / "whole"), strict=True):
        assert a[1] == pytest.approx(b[1], rel=1e-3)  # attention's backward pass adds up in any order on a GPU


def test_exports_equal_what_was_trained(corpus: Path, tmp_path: Path) -> None:
    start(*SMALL_MODEL, *RUN, "--data-path", corpus, "--save", tmp_path / "run")
    command = [sys.executable, "tools/convert_checkpoint.py", "to-hf", tmp_path / "run", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    assert "logits equal" in done.stdout


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("layout", ["--tensor-model-parallel-size", "--pipeline-model-parallel-size"])
def test_two_gpus_say_what_one_says(layout: str, corpus: Path, tmp_path: Path) -> None:
    flags = [*SMALL_MODEL, *RUN, "--data-path", corpus, "--train-iters", 4]
    start(*flags, "--save", tmp_path / "one")
    start(*flags, "--save", tmp_path / "two", layout, 2, ranks=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
