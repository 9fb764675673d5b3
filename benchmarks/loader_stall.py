"""Share of the time of a training step that is spent waiting for data.

python benchmarks/loader_stall.py

A real run: the steps of training/loop.py on batches of training/feed.py. Ours reads ahead in a thread; the peer reads
the same batches in the training thread when they are asked for.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

from measure import report, seconds_in_turns  # noqa: E402
from small_run import small_run  # noqa: E402

from megatron_distill.batch import Batch  # noqa: E402
from megatron_distill.parallel.worlds import World  # noqa: E402
from megatron_distill.training.plan import RunPlan  # noqa: E402


class Clocked(Iterator[Batch]):
    """Batches, and how long they were waited for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.seconds = batches, 0.0

    def __next__(self) -> Batch:
        begun = time.perf_counter()
        batch = next(self.batches)
        self.seconds += time.perf_counter() - begun
        return batch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="steps of each side that count")
    arguments = parser.parse_args()
    with small_run() as (plan, world):
        measure(plan, world, arguments.rounds)


def measure(plan: RunPlan, world: World, rounds: int) -> None:
    """Both sides train the same model in turns."""
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.loop import take_step
    from megatron_distill.training.metrics import Metrics
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student

    student, state, feed = build_student(plan, 0, weights=None, with_optimizer=False), TrainState(), Feed(plan)
    ahead = feed.training_batches(0)
    sides = Clocked(ahead), Clocked(in_turn(feed, plan))
    spent = [0.0, 0.0]

    with Metrics(plan, world, state) as metrics:
        metrics.say = metrics._progress = lambda *args: None  # type: ignore[method-assign,assignment]

        def step(side: int) -> None:
            begun = time.perf_counter()
            take_step(student, state, sides[side], metrics, should_stop=False)
            spent[side] += time.perf_counter() - begun

        seconds_in_turns(lambda: step(0), lambda: step(1), rounds=rounds)
    ahead.close()  # type: ignore[attr-defined]
    ours, peer = (100 * clock.seconds / total for clock, total in zip(sides, spent, strict=True))
    report("loader_stall", ours, peer, "% of a step")


def in_turn(feed, plan: RunPlan) -> Iterator[Batch]:  # type: ignore[no-untyped-def]
    """What `feed` gives, without a thread."""
    micro = plan.config.training.micro_batch_size
    for first in range(0, plan.total_samples, micro):
        yield feed._on_device(feed._read(feed.train, range(first, first + micro)))


if __name__ == "__main__":
    main()
