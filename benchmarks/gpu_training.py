"""Training speed, model FLOPs utilisation and peak memory in bf16, beside the same model in plain PyTorch, compiled.

python benchmarks/gpu_training.py --model palm-300m --micro-batch-size 8

One after the other on one GPU, both with Lion and fp32 master weights. Runs on a CPU too, with a small model, to see
that it works.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

from measure import report, synchronize  # noqa: E402
from plain_palm import PlainPalm  # noqa: E402
from small_run import write_corpus  # noqa: E402

from megatron_distill.config.flags import parse  # noqa: E402
from megatron_distill.config.run import RunConfig  # noqa: E402
from megatron_distill.optim.lion import Lion  # noqa: E402
from megatron_distill.parallel import device  # noqa: E402
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402
from megatron_distill.training.plan import RunPlan, make_plan  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="palm-300m", help="preset")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="samples at once")
    parser.add_argument("--seq-length", type=int, default=2048, help="tokens of a sample")
    parser.add_argument("--steps", type=int, default=10, help="steps of each side that count, after three that do not")
    arguments = parser.parse_args()
    batch = str(arguments.micro_batch_size)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_corpus(corpus, vocab=8192)
        flags = ["--model", arguments.model, "--seq-length", str(arguments.seq_length), "--train-iters", "1000"]
        flags += ["--micro-batch-size", batch, "--global-batch-size", batch, "--precision", "bf16"]
        plan = make_plan(parse(RunConfig, [*flags, "--data-path", str(corpus), "--save", folder + "/run"]), 1)
        with open_world((Role("student", plan.layout),)):
            ours = measure_ours(plan, arguments.steps)
            peer = measure_peer(plan, arguments.steps)
    tell(plan, arguments.model, ours, peer)


def tell(plan: RunPlan, name: str, ours: tuple[float, int], peer: tuple[float, int]) -> None:
    """Three figures: tokens/s, utilisation where the device's peak is known, memory."""
    tokens = plan.tokens_per_iter
    rates = [tokens / seconds for seconds, _ in (ours, peer)]
    report(f"{name}_tokens_per_s", *rates, "tokens/s", device=device.name())
    if device.peak_flops() is not None:
        work = plan.shape.flops_per_token(plan.config.data.seq_length)
        report(f"{name}_mfu", *(100 * rate * work / device.peak_flops() for rate in rates), "% of bf16 peak")  # type: ignore[operator]
    report(f"{name}_peak_memory", ours[1] / 2**30, peer[1] / 2**30, "GiB")


def measure_ours(plan: RunPlan, steps: int) -> tuple[float, int]:
    """(median seconds of a step, peak bytes)."""
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import train_step
    from megatron_distill.training.student import build_student

    student = build_student(plan, 0, weights=None, with_optimizer=False)
    batches = Feed(plan).training_batches(0)
    found = timed(lambda: train_step(student, batches, 1e-4, should_stop=False), steps)
    batches.close()
    return found


def measure_peer(plan: RunPlan, steps: int) -> tuple[float, int]:
    """The same for plain PyTorch."""
    from megatron_distill.training.feed import Feed

    model = PlainPalm(plan.shape).to(device.current())
    compiled = torch.compile(model)
    optimizer = Lion(model.parameters(), lr=1e-4)
    batches = Feed(plan).training_batches(0)

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        with torch.autocast(device.current().type, torch.bfloat16):
            loss = compiled(batch.tokens, batch.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    found = timed(step, steps)
    batches.close()
    return found


def timed(step: Callable[[], object], steps: int) -> tuple[float, int]:
    """(median seconds, peak bytes) of a step, after three that compile and fill caches."""
    gc.collect()
    if device.is_cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for i in range(steps + 3):
        synchronize()
        begun = time.perf_counter()
        step()
        synchronize()
        if i >= 3:
            times.append(time.perf_counter() - begun)
    return statistics.median(times), device.peak_memory_bytes()


if __name__ == "__main__":
    main()
