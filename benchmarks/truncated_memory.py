"""Peak memory of a truncated student's run against a run of the same small model from scratch.

python benchmarks/truncated_memory.py

Real runs of pretrain_distill.py, one rank each: allocated bytes of a GPU, or on a CPU the resident bytes above those of
a run of a tiny model, which is what the interpreter and its libraries take. Two figures: layers removed at the start,
and removed in the middle of a run, where the peak counts from the removal on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from measure import report  # noqa: E402
from small_run import write_corpus  # noqa: E402

LAYERS = 16
SIZES = {
    "cpu": "--hidden-size 512 --num-attention-heads 8 --vocab-size 8192 --seq-length 128 --micro-batch-size 4 "
    "--global-batch-size 4 --precision fp32",
    "cuda": "--model palm-1.1b --seq-length 2048 --micro-batch-size 4 --global-batch-size 4",
}


def main() -> None:
    """Run them one after the other, and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_corpus(folder / "corpus", vocab=8192)
        floor = 0 if torch.cuda.is_available() else peak(folder, "tiny", "--num-layers", 2, "--hidden-size", 64)
        peak(folder, "base", "--num-layers", LAYERS, steps=1)
        small = peak(folder, "scratch", "--num-layers", LAYERS // 2) - floor
        half = ["--load", folder / "base", "--pruning-layout", "max-gap"]
        tokens = ["--pruning-seed-tokens", 2 * tokens_of_a_step()]
        for name, more in (("at_start", []), ("in_a_run", tokens)):
            ours = peak(folder, name, "--num-layers", LAYERS, *half, *more) - floor
            report(f"truncated_memory_{name}", ours / 2**20, small / 2**20, "MiB")


def flags() -> list[str]:
    """The model and batch for this device."""
    return SIZES["cuda" if torch.cuda.is_available() else "cpu"].split()


def tokens_of_a_step() -> int:
    """Tokens of one optimizer step."""
    given = dict(zip(flags()[::2], flags()[1::2], strict=True))
    return int(given["--seq-length"]) * int(given["--global-batch-size"])


def peak(folder: Path, run: str, *more: object, steps: int = 6) -> int:
    """Peak bytes of one run."""
    common = ["--data-path", folder / "corpus", "--save", folder / run, "--train-iters", steps, "--eval-iters", 1]
    command = [sys.executable, ROOT / "pretrain_distill.py", *flags(), *common, *more]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, env=environment)
    return int(json.loads((folder / run / "result.json").read_text())["peak_memory_bytes"])


if __name__ == "__main__":
    main()
