"""What a step of each distillation method costs, over what its FLOPs say.

    python benchmarks/kd_step.py

The same half-size student takes steps without a teacher and with one in its own process, in turns, on the same cores.
ratio = (time of a step with the method / time without) / (FLOPs with / FLOPs without). FLOPs are those of the method
itself, losses included (config/distillation_cost.py); `paper_ratio` divides by (6 N_student + 2 N_teacher) / (6
N_student) instead, as arXiv:2305.14864v2, Table 4, counts for every method, where it is 1.0, 1.2 to 1.7 and 4.8 to 5.7.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

from measure import report, synchronize  # noqa: E402

from megatron_distill.config.distillation_cost import METHODS, method_flops_per_token  # noqa: E402
from megatron_distill.config.flags import parse  # noqa: E402
from megatron_distill.config.run import RunConfig  # noqa: E402
from megatron_distill.data.indexed import IndexedWriter  # noqa: E402
from megatron_distill.parallel.worlds import Role, World, open_world  # noqa: E402
from megatron_distill.training.plan import RunPlan, make_plan  # noqa: E402

SIZES = {
    "cpu": "--hidden-size 512 --num-attention-heads 8 --num-layers 12 --vocab-size 16384",
    "cuda": "--model palm-300m",
}
BATCHES = {
    "cpu": "--seq-length 1024 --micro-batch-size 1 --global-batch-size 2",
    "cuda": "--seq-length 2048 --micro-batch-size 8 --global-batch-size 16",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="steps of each method that count")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        corpus, base = Path(folder) / "corpus", Path(folder) / "base"
        with IndexedWriter(corpus, np.dtype(np.uint16)) as writer:
            writer.add_document(np.random.default_rng(0).integers(0, 16384, 400_000))
        common = [*BATCHES[device].split(), "--data-path", str(corpus), "--train-iters", "1000"]
        start = plan_of([*SIZES[device].split(), *common, "--save", str(base)])
        with open_world((Role("student", start.layout),)) as world:
            save_fresh(start)
            half = [*common, "--load", str(base), "--pruning-layout", "max-gap", "--save", folder + "/run"]
            plans = {name: plan_of([*half, *teacher_flags(losses)]) for name, losses in METHODS.items()}
            seconds = measure(plans, world, arguments.rounds)
    for name in ("vanilla", "minilm", "homotopic"):
        publish(name, plans, seconds)


def plan_of(flags: list[str]) -> RunPlan:
    """A run in this process."""
    return make_plan(parse(RunConfig, flags), world_size=1)


def teacher_flags(losses: tuple[str, ...]) -> list[str]:
    """A method on the command line."""
    return ["--loss", *losses, "--teacher-placement", "colocated"] if losses else []


def save_fresh(plan: RunPlan) -> None:
    """A checkpoint of untrained weights: products take as long with any."""
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, save_student

    save_student(build_student(plan, 0, weights=None, with_optimizer=False), TrainState())


def measure(plans: dict[str, RunPlan], world: World, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each method; the methods take turns."""
    from megatron_distill.losses.total import LM
    from megatron_distill.training.feed import Feed
    from megatron_distill.training.step import train_step
    from megatron_distill.training.student import build_student
    from megatron_distill.training.teaching import build_terms, open_teacher

    steps = {}
    for name, plan in plans.items():
        terms = build_terms(plan)
        with open_teacher(plan, world, terms) as teacher:
            student = build_student(plan, 0, weights=plan.load_from, with_optimizer=False, teacher=teacher, terms=terms)
        names = student.objective.components if student.objective else ()
        scales = plan.normalisation.scales(dict.fromkeys((LM, *names), 1.0)) if names else None
        batches = Feed(plan).training_batches(0)
        steps[name] = lambda s=student, b=batches, c=scales: train_step(s, b, 1e-5, should_stop=False, scales=c)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 2):
        for name, step in steps.items():
            synchronize()
            begun = time.perf_counter()
            step()
            synchronize()
            if i >= 2:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def publish(name: str, plans: dict[str, RunPlan], seconds: dict[str, float]) -> None:
    """One line."""
    plan = plans[name]
    assert plan.teacher is not None
    layers, seq = len(plan.layers_at(0)), plan.config.data.seq_length
    shape, teacher = plan.shape, plan.teacher
    with_teacher = method_flops_per_token(shape, layers, teacher.shape, len(teacher.layers), seq, METHODS[name])
    flops_ratio = sum(with_teacher) / shape.flops_per_token(seq, layers)
    ours, theirs = shape.num_parameters(layers), teacher.shape.num_parameters(len(teacher.layers))
    time_ratio = seconds[name] / seconds["none"]
    report(
        name,
        time_ratio,
        flops_ratio,
        "times the step without a teacher",
        seconds=round(seconds[name], 4),
        seconds_without=round(seconds["none"], 4),
        paper_ratio=round(time_ratio / ((6 * ours + 2 * theirs) / (6 * ours)), 4),
    )


if __name__ == "__main__":
    main()
