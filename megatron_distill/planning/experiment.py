"""What the runs of an experiment cost before the first has started: FLOPs, hours, disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_distill.config.arguments import split_words
from megatron_distill.config.error import ConfigError
from megatron_distill.config.flags import parse
from megatron_distill.config.model import ModelConfig
from megatron_distill.config.parameter_bytes import element_bytes, parameter_bytes
from megatron_distill.config.run import RunConfig
from megatron_distill.training.plan import RunPlan, make_plan

from .device import Device


@dataclass(frozen=True)
class RunCost:
    """One run of an experiment."""

    name: str
    steps: int
    tokens: int
    flops: float
    """Of both roles, attention and seed phase included."""
    paper_flops: float
    """As the papers count."""
    disk: int
    """Bytes of the checkpoints that stay, at most."""
    finished: bool


def costs(commands: Sequence[str], ranks: int) -> list[RunCost]:
    """The runs of `commands`, each the flags of pretrain_distill.py as a shell would read them, in the order in which
    they would run. A run may start from one that is yet to come into being by a command before it.

    Raises:
        ConfigError: a command that is wrong, or that starts from a run that is nowhere.
    """
    models: dict[Path, ModelConfig] = {}
    found = []
    for command in commands:
        config = parse(RunConfig, [*split_words(command, "the flags of a run"), "--dry-run"])
        config = _from_what_will_be(config, models)
        models[Path(config.checkpoint.save)] = config.model
        found.append(_cost(make_plan(config, ranks)))
    return found


def hours(flops: float, ranks: int, device: Device, mfu: float) -> float:
    """Wall time of that many FLOPs on `ranks` devices that reach `mfu` of their peak."""
    return flops / (ranks * device.peak_flops * mfu) / 3600


def table(found: Sequence[RunCost], ranks: int, device: Device, mfu: float) -> str:
    """A line a run, and the sum of those that are not finished."""
    rows: list[tuple[str, ...]] = [("run", "steps", "tokens", "FLOPs", "papers' FLOPs", "hours", "disk GB")]
    left = [run for run in found if not run.finished]
    for run in found:
        name = f"{run.name} (finished)" if run.finished else run.name
        rows.append((name, f"{run.steps:,}", *_amounts([run], ranks, device, mfu)))
    rows.append((f"{len(left)} to run", "", *_amounts(left, ranks, device, mfu)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _amounts(runs: Sequence[RunCost], ranks: int, device: Device, mfu: float) -> tuple[str, ...]:
    """Tokens, FLOPs both ways, hours and disk of runs together."""
    flops = sum(run.flops for run in runs)
    time = hours(flops, ranks, device, mfu)
    paper, disk = sum(run.paper_flops for run in runs), sum(run.disk for run in runs)
    in_hours = f"{time:,.1f}" if time >= 0.1 else f"{time:.3f}"
    return f"{sum(run.tokens for run in runs):,}", f"{flops:.4g}", f"{paper:.4g}", in_hours, f"{disk / 1e9:,.2f}"


def _from_what_will_be(config: RunConfig, models: Mapping[Path, ModelConfig]) -> RunConfig:
    """The same run from fresh weights, where what it would load does not exist yet."""
    load = config.checkpoint.load
    if load is None or Path(load).exists():
        return config
    source = next((path for path in (Path(load), *Path(load).parents) if path in models), None)
    if source is None:
        raise ConfigError(f"--load {load} is not there, and no run before it makes it")
    checkpoint = dataclasses.replace(config.checkpoint, load=None)
    teacher = config.teacher
    if teacher.load is not None and not Path(teacher.load).exists():
        teacher = dataclasses.replace(teacher, load=None)
    return dataclasses.replace(config, model=models[source], checkpoint=checkpoint, teacher=teacher)


def _cost(plan: RunPlan) -> RunCost:
    true, paper = plan.training_flops()
    checkpoint = plan.config.checkpoint
    kept = checkpoint.keep_checkpoints or plan.total_iters // checkpoint.save_interval
    if checkpoint.save_retain_interval:
        kept += plan.total_iters // checkpoint.save_retain_interval
    element = element_bytes(plan.config.training.precision)
    parameters = plan.shape.num_parameters(len(plan.initial_layers))
    return RunCost(
        name=Path(checkpoint.save).name,
        steps=plan.total_iters,
        tokens=plan.total_iters * plan.tokens_per_iter,
        flops=true,
        paper_flops=paper,
        disk=kept * parameters * parameter_bytes(element, plan.config.optimizer.optimizer).stored,
        finished=plan.finished,
    )
