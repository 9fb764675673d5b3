"""What can be asked of a measured model, how it is read off, and how its numbers are written."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from megatron_distill.evaluation.suites import AVERAGES, PAPER

from .experiments import Measurement, Study, finite
from .published import MEAN_OF
from .setting import Setting


class MissingError(LookupError):
    """A number that is not there; says why in a few words."""


@dataclass(frozen=True)
class Estimate:
    """A number from one run or several."""

    values: tuple[float, ...]
    runs: tuple[Path, ...]

    @property
    def mean(self) -> float:
        """Of the runs."""
        return statistics.mean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None of one run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Quantity:
    """A column of the papers' tables, or one of ours."""

    name: str
    title: str
    read: Callable[[Measurement, Study], float]
    """Raises MissingError."""
    digits: int = 2
    better: int = 0
    """1 if more is better, -1 if less is, 0 if a difference to the papers says neither."""
    significant: bool = False
    """`digits` counts significant ones: amounts that differ by orders of magnitude between our runs and the papers'.
    They are compared by a factor, others by a difference."""

    def text(self, value: float) -> str:
        """A value as it stands in a table."""
        if self.significant:
            return _significant(value, self.digits)
        return f"{value:,.{0 if abs(value) >= 10_000 else self.digits}f}".replace("-", "−")

    def spread(self, value: float) -> str:
        """A standard deviation; empty if it is 0, as that of a cost that is counted and not measured."""
        if not value:
            return ""
        return "± " + (_significant(value, 2) if self.significant else self.text(value))

    def difference(self, ours: float, published: float) -> str:
        """Ours less the published value, with its sign; a factor for amounts."""
        if self.significant:
            return f"×{_significant(ours / published, 2)}" if published else ""
        text = self.text(abs(ours - published))
        if not text.strip("0."):
            return "±0"
        return ("+" if ours > published else "−") + text


def _significant(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if -4 <= int(exponent) < 6:
        return f"{float(f'{mantissa}e{exponent}'):,.{max(0, digits - 1 - int(exponent))}f}"
    return f"{mantissa}e{int(exponent)}".replace("e-", "e−")


def estimate(study: Study, setting: Setting, quantity: Quantity) -> Estimate:
    """Of the runs of a setting that have the quantity.

    Raises:
        MissingError: none has.
    """
    measurements = study.find(setting)
    if not measurements:
        raise MissingError(setting.obstacle or "not run")
    values, runs, reason = [], [], ""
    for measurement in measurements:
        try:
            values.append(quantity.read(measurement, study))
            runs.append(measurement.run.folder)
        except MissingError as error:
            reason = str(error)
    if not values:
        raise MissingError(reason)
    return Estimate(tuple(values), tuple(runs))


def _perplexity(measurement: Measurement, study: Study) -> float:
    if measurement.perplexity is None:
        raise MissingError("not a finite number" if measurement.final else "not validated here")
    return measurement.perplexity


def _perplexity_ratio(measurement: Measurement, study: Study) -> float:
    return _perplexity(measurement, study) / _of(study, measurement.setting.origin, PERPLEXITY)


def _percent(name: str, measurement: Measurement, study: Study) -> float:
    if not measurement.scores:
        raise MissingError("not evaluated on tasks")
    if name not in measurement.scores:
        raise MissingError("not all tasks evaluated" if name in AVERAGES else "not evaluated")
    return 100 * measurement.scores[name]


def _mean(names: Sequence[str], measurement: Measurement, study: Study) -> float:
    return statistics.fmean(_percent(name, measurement, study) for name in names)


def _eight_drop(measurement: Measurement, study: Study) -> float:
    before = _of(study, measurement.setting.origin, EIGHT)
    return 100 * _ratio(_percent("eight", measurement, study) - before, before)


def _recorded(key: str, measurement: Measurement, study: Study) -> float:
    value = finite(measurement.run.result.get(key)) if measurement.final else None
    if value is None:
        raise MissingError("device's peak unknown" if key == "mfu" else "not recorded")
    return value


def _hours(measurement: Measurement, study: Study) -> float:
    return _recorded("seconds", measurement, study) / 3600


def _accelerators(measurement: Measurement, study: Study) -> float:
    try:
        return _recorded("accelerators", measurement, study)
    except MissingError:
        run = measurement.run.run
        layout, teacher = run.get("layout"), run["config"].get("teacher", {})
        if not layout:
            raise
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")
        separate = teacher.get("placement") == "separate"
        return float(
            layout["tensor"] * layout["pipeline"] * layout["data"]
            + (prod(teacher.get(size, 1) for size in sizes) if separate else 0)
        )


def _accelerator_hours(measurement: Measurement, study: Study) -> float:
    try:
        return _recorded("accelerator_hours", measurement, study)
    except MissingError:
        return _hours(measurement, study) * _accelerators(measurement, study)


def _over_teacher_free(amount: Quantity, measurement: Measurement, study: Study) -> float:
    teacher_free = replace(measurement.setting, method="none", weight=1.0, lm_weight=1.0)
    return _ratio(amount.read(measurement, study), _of(study, teacher_free, amount, "no teacher-free run"))


def _ratio(value: float, base: float) -> float:
    if not base:
        raise MissingError("what it is compared with is 0")
    return value / base


def _of(study: Study, setting: Setting, quantity: Quantity, missing: str = "no base run") -> float:
    if not study.find(setting):
        raise MissingError(missing)
    return estimate(study, setting, quantity).mean


def _score(name: str, title: str) -> Quantity:
    return Quantity(name, title, partial(_percent, name), digits=1, better=1)


PERPLEXITY = Quantity("perplexity", "perplexity", _perplexity)
PERPLEXITY_RATIO = Quantity("perplexity_ratio", "perplexity / before", _perplexity_ratio, digits=3, better=-1)
_TITLES = {
    "piqa": "PIQA",
    "hellaswag": "Hella\u00adSwag",
    "winogrande": "Wino\u00adGrande",
    "boolq": "BoolQ",
    "openbookqa": "OBQA",
    "sciq": "SciQ",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "copa": "COPA",
    "rte": "RTE",
    "cb": "CB",
    "mrpc": "MRPC",
    "sst2": "SST-2",
}
TASKS = {name: _score(name, _TITLES[name]) for name in PAPER}
AVERAGE_12 = _score("paper12", "average of 12")
AVERAGE_13 = _score("paper13", "average of 13")
EIGHT = _score("eight", "average of 8")
EIGHT_DROP = Quantity("eight_drop", "change of the average of 8, %", _eight_drop, better=1)
PAPER_FLOPS = Quantity("paper_flops", "FLOPs as the papers count", partial(_recorded, "paper_flops"), 3, 0, True)
FLOPS_RATIO = Quantity("flops_ratio", "FLOPs over teacher-free", partial(_over_teacher_free, PAPER_FLOPS), 2, 0)
HOURS = Quantity("hours", "hours", _hours, 3, 0, True)
HOURS_RATIO = Quantity("hours_ratio", "hours over teacher-free", partial(_over_teacher_free, HOURS), 2, 0)
ACCELERATORS = Quantity("accelerators", "accelerators", _accelerators, 0, 0)
ACCELERATOR_HOURS = Quantity("accelerator_hours", "accelerator-hours", _accelerator_hours, 3, 0, True)
FLOPS = Quantity("flops", "true FLOPs", partial(_recorded, "flops"), 3, 0, True)
TOKENS_PER_S = Quantity("tokens_per_s", "tokens/s", partial(_recorded, "tokens_per_s"), 3, 0, True)
MFU = Quantity("mfu", "MFU", partial(_recorded, "mfu"), 3, 0)


def mean_over(names: Sequence[str]) -> Quantity:
    """The mean over some tasks, where not all of an average were evaluated; `published.py` takes the same mean."""
    title = f"average of the {len(names)} evaluated"
    return Quantity(f"{MEAN_OF}{'+'.join(names)}", title, partial(_mean, tuple(names)), digits=1, better=1)


def tasks(average: str) -> Sequence[Quantity]:
    """The tasks of an average, in the papers' order."""
    return [TASKS[name] for name in AVERAGES[average]]
