"""What crosses from a separate teacher for a token, and how long the student waits for it.

    python benchmarks/bridge.py

Bytes: each method on each wire, over the student's 16-bit logits, which other programs send. Waiting: real jobs of two
ranks on this machine, one for each role, one thread each (on GPUs one device each); the share of a step that the
student's last stage waits, the first steps left out. The teacher's forward pass is two thirds of the student's work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

from measure import report  # noqa: E402

from megatron_distill.config.distillation_cost import METHODS  # noqa: E402
from megatron_distill.config.flags import parse  # noqa: E402
from megatron_distill.config.run import RunConfig  # noqa: E402
from megatron_distill.data.indexed import IndexedWriter  # noqa: E402

SIZE = "--hidden-size 256 --num-attention-heads 4 --num-layers 12 --vocab-size 8192"
BATCH = "--seq-length 512 --micro-batch-size 1 --global-batch-size 4"
SKIPPED = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="steps of each job")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        with IndexedWriter(corpus, np.dtype(np.uint16)) as writer:
            writer.add_document(np.random.default_rng(0).integers(0, 8192, 200_000))
        common = [*BATCH.split(), "--data-path", str(corpus), "--log-interval", "1", "--eval-iters", "1"]
        base = Path(folder) / "base"
        run([*SIZE.split(), *common, "--train-iters", "1", "--lr-warmup-iters", "0", "--save", str(base)], ranks=1)
        half = [*common, "--train-iters", str(arguments.steps), "--load", str(base), "--pruning-layout", "max-gap"]
        half += ["--teacher-placement", "separate"]
        for method in ("vanilla", "minilm", "homotopic"):
            for wire in ("hidden", "logits", "topk"):
                flags = [
                    *half,
                    "--loss",
                    *METHODS[method],
                    "--bridge-wire",
                    wire,
                    "--save",
                    f"{folder}/{method}-{wire}",
                ]
                crossing(f"bytes-{method}-{wire}", flags)
        for method in ("vanilla", "minilm", "homotopic"):
            save = Path(folder) / f"{method}-run"
            run([*half, "--loss", *METHODS[method], "--save", str(save)], ranks=2)
            waiting(f"wait-{method}", save)


def crossing(name: str, flags: list[str]) -> None:
    """Bytes a token, headers included."""
    from megatron_distill.training.plan import make_plan
    from megatron_distill.training.teaching import build_terms, bytes_per_token

    plan = make_plan(parse(RunConfig, flags), world_size=2)
    report(name, bytes_per_token(plan, build_terms(plan)), 2.0 * plan.shape.padded_vocab_size, "bytes a token")


def run(flags: list[str], ranks: int) -> None:
    """A whole job."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += [str(ROOT / "pretrain_distill.py"), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def waiting(name: str, save: Path) -> None:
    """Share of the steps' time."""
    rows = [row for row in map(json.loads, (save / "metrics.jsonl").open()) if row["kind"] == "train"][SKIPPED:]
    tokens = rows[1]["consumed_tokens"] - rows[0]["consumed_tokens"]
    seconds = sum(tokens / row["tokens_per_s"] for row in rows)
    waited = sum(row["teacher_wait_ms"] for row in rows) / 1000
    report(name, waited, seconds, "seconds", steps=len(rows))


if __name__ == "__main__":
    main()
