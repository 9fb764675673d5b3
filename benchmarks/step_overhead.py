"""Tokens/s of a full training step against a bare megatron-core loop over the same model.

python benchmarks/step_overhead.py

Ours reads text, prepares batches, sets the learning rate, counts, and writes metrics.jsonl and TensorBoard every step;
the peer calls megatron-core's schedule and optimizer on batches that already lie on the device.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

from measure import report, seconds_in_turns  # noqa: E402
from small_run import small_run  # noqa: E402

from megatron_distill.parallel.worlds import World  # noqa: E402
from megatron_distill.training.plan import RunPlan  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="steps of each side that count")
    arguments = parser.parse_args()
    with small_run("--log-interval", "1") as (plan, world):
        measure(plan, world, arguments.rounds)


def measure(plan: RunPlan, world: World, rounds: int) -> None:
    """Both sides, each with a model of its own that starts alike."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_distill.training.feed import Feed
    from megatron_distill.training.loop import take_step
    from megatron_distill.training.metrics import Metrics
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student

    ours, bare = (build_student(plan, 0, weights=None, with_optimizer=False) for _ in range(2))
    state, feed = TrainState(), Feed(plan)
    batches = feed.training_batches(0)
    fixed = [feed._on_device(feed.train.batch(range(plan.config.training.micro_batch_size)))]
    schedule = get_forward_backward_func()

    def loss(mask, losses):  # type: ignore[no-untyped-def]
        total = (losses.float() * mask).sum()
        return total, mask.sum().to(torch.int), total.detach()

    def forward(data, model):  # type: ignore[no-untyped-def]
        out = model(fixed[0].tokens, fixed[0].position_ids, None, labels=fixed[0].labels)
        return out, partial(loss, fixed[0].loss_mask)

    def bare_step() -> None:
        bare.ddp.zero_grad_buffer()
        bare.optimizer.zero_grad()
        schedule(
            forward_step_func=forward,
            data_iterator=None,
            model=[bare.ddp],
            num_microbatches=plan.layout.num_microbatches,
            seq_length=plan.config.data.seq_length,
            micro_batch_size=plan.config.training.micro_batch_size,
            forward_only=False,
        )
        bare.optimizer.step()

    with Metrics(plan, world, state) as metrics:
        metrics.say = metrics._progress = lambda *args: None  # type: ignore[method-assign,assignment] # only JSON here
        mine, theirs = seconds_in_turns(
            lambda: take_step(ours, state, batches, metrics, should_stop=False), bare_step, rounds=rounds
        )
    batches.close()
    report("step_overhead", plan.tokens_per_iter / mine, plan.tokens_per_iter / theirs, "tokens/s")


if __name__ == "__main__":
    main()
