"""The run that benchmarks of a training step share: a small model on a temporary corpus of random tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.data.indexed import IndexedWriter
from megatron_distill.parallel.worlds import Role, World, open_world
from megatron_distill.training.plan import RunPlan, make_plan

VOCAB = 8192
SIZES = {
    "cpu": f"--hidden-size 256 --num-attention-heads 4 --num-layers 6 --vocab-size {VOCAB} --seq-length 256 "
    "--micro-batch-size 4 --global-batch-size 8",
    "cuda": "--model palm-300m --seq-length 2048 --micro-batch-size 8 --global-batch-size 16",
}


@contextmanager
def small_run(*flags: str) -> Iterator[tuple[RunPlan, World]]:
    """A plan of the size that fits the device, with `flags` in addition, and its world of one rank."""
    size = SIZES["cuda" if torch.cuda.is_available() else "cpu"].split()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus)
        paths = ["--data-path", str(corpus), "--save", f"{folder}/run", "--train-iters", "100000"]
        plan = make_plan(parse(RunConfig, [*size, *paths, *flags]), world_size=1)
        with open_world((Role("student", plan.layout),)) as world:
            yield plan, world


def write_corpus(prefix: Path, vocab: int = VOCAB) -> None:
    """A million random tokens."""
    generator = np.random.default_rng(0)
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for _ in range(1000):
            writer.add_document(generator.integers(0, vocab, 1000))
