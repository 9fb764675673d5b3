"""What losses are given and what they return, and how they are found by name.

A new loss is one new file of this package: a frozen dataclass whose fields are its options, under `@loss("name")`.
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.tap import Tap

from .teacher_signal import Teacher


@dataclass(frozen=True)
class LossInputs:
    """One micro-batch, as the ranks of a tensor-parallel group see it."""

    layers: tuple[int, ...]
    """Layers of the student to compare: some or all of those that the loss taps."""
    student: Mapping[Tap, Tensor]
    teacher: Mapping[Tap, Tensor]
    labels: Tensor
    """Next tokens, [seq, batch]."""
    mask: Tensor
    """1 where the prediction at a position counts, [seq, batch]."""
    group: dist.ProcessGroup | None
    """The tensor-parallel group; None: nothing is split."""
    sequence_parallel: bool = False
    """Whether hidden states are split over `group` along the sequence."""
    teacher_signal: Teacher | None = None
    """What is known of the teacher's logits, for losses on them; tokens in the order of [seq, batch]."""
    vocab_size: int | None = None
    """Tokens that both models have, for losses on tables; rows beyond them do not count. None: every row counts."""


class Loss(Protocol):
    """A term of a distillation method."""

    @property
    def components(self) -> tuple[str, ...]:
        """Names of what it measures, each of which is weighted and normalised by itself."""

    def check(self, student: ModelShape, teacher: ModelShape) -> None:
        """Raise ConfigError where the models cannot be compared so."""

    def taps(self, layers: Sequence[int]) -> tuple[Tap, ...]:
        """What it needs of both models, for a student of `layers` (numbers in the pretrained model)."""

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Components by name, each summed over the counted tokens: fp32, without dimensions, the same on every
        tensor-parallel rank, with gradient. Divided by the tokens of a step they are means, and the parts of a loss on
        different layers, ranks and micro-batches add up. Collective over the tensor-parallel group."""


_LOSSES: dict[str, Callable[..., Loss]] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., Any])


def loss(name: str) -> Callable[[_Builder], _Builder]:
    """Register a loss under its name on the command line."""

    def add(builder: _Builder) -> _Builder:
        _LOSSES[name] = builder
        return builder

    return add


def loss_names() -> tuple[str, ...]:
    """All names, sorted; finds every file of this package by itself."""
    for module in pkgutil.iter_modules([*importlib.import_module(__package__).__path__]):
        importlib.import_module(f"{__package__}.{module.name}")
    return tuple(sorted(_LOSSES))


def build_loss(name: str, **options: Any) -> Loss:
    """The loss of that name with the given options.

    Raises:
        ConfigError: there is no such loss, it has no such option, or the option's value is out of range.
    """
    names = loss_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ConfigError(
            f"no loss is called {name}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")
        )
    builder: Any = _LOSSES[name]
    known = {field.name for field in fields(builder)}
    if unknown := options.keys() - known:
        takes = ", ".join(sorted(known)) or "nothing"
        raise ConfigError(f"loss {name} does not take {', '.join(sorted(unknown))}; it takes {takes}")
    for option, hint in get_type_hints(builder).items():
        if option in options and not _fits(options[option], get_args(hint) or (hint,)):
            kind = " or ".join(_KINDS[each] for each in get_args(hint) or (hint,))
            raise ConfigError(f"loss {name}: {option}={options[option]} must be {kind}")
    return builder(**options)


_KINDS = {str: "a name", int: "a whole number", float: "a number", type(None): "left out"}


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        return False
    if isinstance(value, int | float) and float in kinds:
        return math.isfinite(value)
    return isinstance(value, kinds)
