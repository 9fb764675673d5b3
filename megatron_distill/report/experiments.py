"""Which cell of the papers' experiments a run stands for, and what was measured on it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_distill.config.distillation import DistillationConfig
from megatron_distill.config.distillation_cost import METHODS
from megatron_distill.config.error import ConfigError

from .records import RunRecord
from .setting import CHECKPOINTS, DEPTH, GAPS, HALF, Setting

_NEAR = 0.9
"""A validation stands for a later checkpoint that it reached this share of."""


class OutsideThePapersError(ValueError):
    """A run that is none of the papers' experiments; says why."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one model: a run's last, or one on the way there."""

    run: RunRecord
    setting: Setting
    final: bool
    perplexity: float | None
    """Of the run's validation text; None where it was not validated near this checkpoint."""
    scores: Mapping[str, float]
    """Shares from 0 to 1 by task, and means over tasks (`evaluation/suites.py`)."""


@dataclass(frozen=True)
class Study:
    """All measurements, by setting: several are seeds."""

    measured: Mapping[Setting, tuple[Measurement, ...]]
    outside: tuple[tuple[RunRecord, str], ...]
    """Runs that are in none of the papers' tables, and why."""

    def find(self, setting: Setting) -> tuple[Measurement, ...]:
        """The measurements of a setting; none if it was not run."""
        return self.measured.get(setting, ())

    @property
    def typical_spread(self) -> float | None:
        """Standard deviation over the mean of perplexity, the median of all settings with several runs."""
        spreads = []
        for measurements in self.measured.values():
            values = [m.perplexity for m in measurements if m.perplexity is not None]
            if len(values) > 1:
                spreads.append(statistics.stdev(values) / statistics.mean(values))
        return statistics.median(spreads) if spreads else None


def arrange(runs: Sequence[RunRecord]) -> Study:
    """Runs as measurements. A base gives those of its smaller checkpoints too, where no run was made for them; of two
    runs that differ in nothing that tells settings and seeds apart, the newer one counts."""
    placed: dict[Setting, list[Measurement]] = {}
    outside = []
    for run in sorted(runs, key=lambda run: str(run.run.get("started")), reverse=True):
        try:
            found = list(_measure(run, identify(run)))
        except OutsideThePapersError as error:
            outside.append((run, str(error)))
            continue
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
            outside.append((run, "its records lack what newer ones hold, or are damaged"))
            continue
        if any(_same(run, m.run) for m in placed.get(found[0].setting, ()) if m.final):
            outside.append((run, "a newer run has the same setting and seed"))
            continue
        for measurement in found:
            placed.setdefault(measurement.setting, []).append(measurement)
    return Study({setting: _preferred(found) for setting, found in placed.items()}, tuple(outside))


def identify(run: RunRecord) -> Setting:
    """What a run stands for, from its labels and its configuration.

    Raises:
        OutsideThePapersError: no label, or a setting that the papers do not have.
    """
    labels = _labels(run)
    model = _one_of(labels, "model", (*HALF, *HALF.values()))
    checkpoint = _one_of(labels, "checkpoint", CHECKPOINTS)
    sizes = (run.result.get("parameters"), run.result.get("tokens"), run.run["shape"]["hidden_size"])
    if not all(isinstance(size, int) for size in sizes):
        raise OutsideThePapersError("its records do not say how large it is")
    config, removed = run.run["config"], len(run.run.get("removed_layers") or ())
    if not removed:
        if run.run.get("load_from") or _distils(config):
            raise OutsideThePapersError("neither pretrained from scratch nor with layers removed")
        return Setting(model=model, checkpoint=checkpoint)
    depth = run.run["shape"]["num_layers"]
    if removed * DEPTH % depth:
        raise OutsideThePapersError(f"{removed} of {depth} layers removed, which is no number of {DEPTH}")
    pruning = config["pruning"]
    method, weight, lm_weight = _method(config)
    return Setting(
        model=model,
        checkpoint=checkpoint,
        layout=pruning["pruning_layout"],
        removed=removed * DEPTH // depth,
        gap=_gap(labels, pruning.get("pruning_gap_tokens", "0")),
        method=method,
        weight=weight,
        lm_weight=lm_weight,
    )


def seed_of(run: RunRecord) -> int | None:
    """The run's seed."""
    seed = run.run.get("config", {}).get("training", {}).get("seed")
    return seed if isinstance(seed, int) else None


def finite(value: Any) -> float | None:
    """A number that is one, or None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def perplexity_of(value: Any) -> float | None:
    """A perplexity that can be one, or None."""
    found = finite(value)
    return found if found is not None and found > 0 else None


def _labels(run: RunRecord) -> dict[str, str]:
    given = run.run.get("config", {}).get("logging", {}).get("label") or ()
    labels = dict(str(item).partition("=")[::2] for item in given)
    if not labels:
        raise OutsideThePapersError("no --label")
    return labels


def _one_of(labels: Mapping[str, str], key: str, allowed: Sequence[str]) -> str:
    if labels.get(key) not in allowed:
        said = f"label {key}={labels[key]}" if key in labels else f"no label {key}"
        raise OutsideThePapersError(f"{said}; the papers have {', '.join(allowed)}")
    return labels[key]


def _gap(labels: Mapping[str, str], tokens: str) -> str:
    """The label, which must not speak against the flag."""
    at_once = tokens == "0"
    gap = "0" if at_once and "gap" not in labels else _one_of(labels, "gap", GAPS)
    if at_once != (gap == "0"):
        raise OutsideThePapersError(f"label gap={gap} speaks against --pruning-gap-tokens {tokens}")
    return gap


def _distils(config: Mapping[str, Any]) -> bool:
    return bool(config.get("distillation", {}).get("loss"))


def _method(config: Mapping[str, Any]) -> tuple[str, float, float]:
    """(method, weight of its losses, weight of the cross-entropy)."""
    given = config.get("distillation", {})
    if not given.get("loss"):
        return "none", 1.0, 1.0
    try:
        distillation = DistillationConfig(loss=tuple(given["loss"]), lm_weight=given.get("lm_weight", 1.0))
    except ConfigError as error:
        raise OutsideThePapersError(str(error)) from None
    specs = distillation.losses()
    names, weights = {spec.name for spec in specs}, {spec.weight for spec in specs}
    method = next((name for name, losses in METHODS.items() if set(losses) == names), None)
    if method is None or len(weights) > 1 or any(spec.options.keys() - {"relation_heads"} for spec in specs):
        raise OutsideThePapersError(f"--loss {' '.join(given['loss'])} is no method of the papers")
    return method, weights.pop(), distillation.lm_weight


def _same(one: RunRecord, other: RunRecord) -> bool:
    return (seed_of(one), one.run.get("load_from")) == (seed_of(other), other.run.get("load_from"))


def _preferred(found: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Runs that were made for a setting, else checkpoints of the longest ones; in the order of their seeds."""
    longest = max(m.run.result["tokens"] for m in found)
    best = [m for m in found if m.final] or [m for m in found if m.run.result["tokens"] == longest]
    return tuple(sorted(best, key=lambda m: (seed_of(m.run) or 0, str(m.run.folder))))


def _measure(run: RunRecord, setting: Setting) -> Iterator[Measurement]:
    last = run.result.get("iterations", run.run.get("total_iters"))
    yield Measurement(run, setting, True, perplexity_of(run.result.get("perplexity")), _scores(run, last))
    if setting.layout is None and setting.model in HALF and run.run.get("total_iters"):
        whole = _billions(setting.checkpoint)
        for checkpoint in CHECKPOINTS[1:]:
            if _billions(checkpoint) < whole:
                at = round(run.run["total_iters"] * _billions(checkpoint) / whole)
                smaller = Setting(model=setting.model, checkpoint=checkpoint)
                yield Measurement(run, smaller, False, _perplexity_at(run, at), _scores(run, at))


def _billions(checkpoint: str) -> int:
    return int(checkpoint.removesuffix("B"))


def _perplexity_at(run: RunRecord, iteration: int) -> float | None:
    rows = [row for row in run.rows if row.get("kind") == "valid" and row.get("iteration", -1) <= iteration]
    if not rows or rows[-1]["iteration"] < _NEAR * iteration:
        return None
    return perplexity_of(rows[-1].get("perplexity"))


def _scores(run: RunRecord, iteration: int | None) -> dict[str, float]:
    values = {name: finite(value) for name, value in run.scores(iteration or 0).items()}
    return {name: value for name, value in values.items() if value is not None}
