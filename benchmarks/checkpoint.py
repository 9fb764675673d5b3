"""Training time lost to a save, waiting and in the background, against torch.save of the same state; and what checking
a checkpoint costs.

python benchmarks/checkpoint.py --folder /path/on/the/disk

A save costs the time for which training waits, and in the background also what the steps take longer while it is
written, against steps without a save right before them. All sides end with the state on disk (fsync). The state is that
of Lion with fp32 weights: weights and momentum.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))
warnings.simplefilter("ignore")

from measure import report, synchronize  # noqa: E402
from small_run import write_corpus  # noqa: E402

from megatron_distill.checkpoint.checksum import ChecksummedFile  # noqa: E402
from megatron_distill.checkpoint.saving import Saver  # noqa: E402
from megatron_distill.checkpoint.verify import find_damage  # noqa: E402
from megatron_distill.config.flags import parse  # noqa: E402
from megatron_distill.config.run import RunConfig  # noqa: E402
from megatron_distill.optim.sharded_state import optimizer_steps  # noqa: E402
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402
from megatron_distill.training.feed import Feed  # noqa: E402
from megatron_distill.training.plan import RunPlan, make_plan  # noqa: E402
from megatron_distill.training.state import TrainState  # noqa: E402
from megatron_distill.training.step import train_step  # noqa: E402
from megatron_distill.training.student import Student, build_student, describe_student  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write, on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=3, help="saves of each side; medians count")
    parser.add_argument("--steps", type=int, default=6, help="steps without a save before each")
    parser.add_argument("--hidden-size", type=int, default=640)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_corpus(folder / "corpus", vocab=8192)
        shape = ["--hidden-size", arguments.hidden_size, "--num-attention-heads", 8, "--num-layers", 8]
        sizes = ["--vocab-size", 8192, "--seq-length", 128, "--micro-batch-size", 2, "--global-batch-size", 4]
        files = ["--data-path", folder / "corpus", "--save", folder / "run", "--train-iters", 100_000]
        flags = [*shape, *sizes, *files, "--precision", "fp32", "--optimizer", "lion"]
        plan = make_plan(parse(RunConfig, [str(flag) for flag in flags]), world_size=1)
        with open_world((Role("student", plan.layout),)):
            Sides(plan, folder).measure(arguments.rounds, arguments.steps)


class Sides:
    """One student, saved in different ways."""

    def __init__(self, plan: RunPlan, folder: Path) -> None:
        self.student: Student = build_student(plan, 0, weights=None, with_optimizer=False)
        self.batches = Feed(plan).training_batches(0)
        self.state, self.folder = TrainState(), folder
        self.savers = {
            name: Saver(folder / name, keep=1, background=name == "background") for name in ("waiting", "background")
        }

    def measure(self, rounds: int, steps: int) -> None:
        """Print a line for each figure."""
        sides = ("waiting", "background", "torch_save")
        for side in sides:  # the first save of each makes what the others reuse
            self.cost(side, steps)
        found: dict[str, list[float]] = {side: [] for side in sides}
        for i in range(rounds):
            for side in sides if i % 2 else sides[::-1]:
                found[side].append(self.cost(side, steps))
        lost = {side: statistics.median(values) for side, values in found.items()}
        least = sum(tensor.nbytes for tensor in self.tensors().values())
        more = {"state_megabytes": round(least / 1e6), "rounds": rounds}
        report("save_waiting", lost["waiting"], lost["torch_save"], "s of training", **more)
        report("save_background", lost["background"], lost["torch_save"], "s of training", **more)
        newest = self.savers["waiting"].newest
        assert newest is not None
        written = sum(path.stat().st_size for path in newest.iterdir())
        report("bytes_written", written / 1e6, least / 1e6, "MB", peer_name="the tensors alone")
        self.measure_verification(newest)

    def measure_verification(self, checkpoint: Path) -> None:
        """Reading every byte against loading, both from the system's cache."""
        plan = self.student.plan
        check = statistics.median(seconds(lambda: find_damage(checkpoint)) for _ in range(5))
        load = statistics.median(
            seconds(lambda: build_student(plan, 0, weights=checkpoint, with_optimizer=True)) for _ in range(3)
        )
        report("verification", check, load, "s", peer_name="building the model and loading it")

    def cost(self, side: str, steps: int) -> float:
        """Seconds of training that a save costs."""
        os.sync()
        plain = statistics.median(seconds(self.step) for _ in range(steps))
        if side == "torch_save":
            return seconds(self.torch_save)
        self.state.iteration += 1
        manifest, saver = describe_student(self.student, self.state), self.savers[side]
        lost = seconds(lambda: saver.save(manifest, self.student.model, self.student.optimizer))
        while saver.newest is None or not saver.newest.name.endswith(f"{self.state.iteration:07d}"):
            lost += seconds(self.step) + seconds(saver.poll) - plain
        return lost

    def step(self) -> None:
        """One step of training."""
        train_step(self.student, self.batches, 1e-4, should_stop=False)

    def tensors(self) -> dict[str, Any]:
        """The state that all sides write."""
        optimizer = self.student.optimizer.optimizer
        moments = {f"exp_avg.{i}": s["exp_avg"] for i, s in enumerate(optimizer.state.values())}
        return {name: p.detach() for name, p in self.student.model.named_parameters()} | moments

    def torch_save(self) -> None:
        """As a short script would do it."""
        state = {name: tensor.clone() for name, tensor in self.tensors().items()}  # or the whole buffer is written
        with ChecksummedFile(self.folder / "plain.pt") as file:
            torch.save({"tensors": state, "steps": optimizer_steps(self.student.optimizer)}, file._file)


def seconds(call: Any) -> float:
    """Of one call."""
    synchronize()
    begun = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
