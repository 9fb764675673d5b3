"""What a student learns from a teacher, where the teacher runs, and what crosses between the two."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Literal

from .error import ConfigError
from .limits import RANKS, TOKEN_IDS, limited, location


@dataclass(frozen=True)
class LossSpec:
    """One item of --loss: a name, its weight, and options of that loss."""

    name: str
    weight: float
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Losses beside the cross-entropy (arXiv:2305.14864, section 3); off unless --loss is given."""

    loss: tuple[str, ...] = ()
    """Distillation losses, NAME or NAME:KEY=VALUE,KEY=VALUE with weight=1 and the options of that loss: vanilla,
    minilm, hidden-states, embedding-table, attention-scores, attention-outputs; vanilla minilm is the papers' miniLM,
    vanilla hidden-states embedding-table attention-scores their homotopic distillation."""
    lm_weight: float = limited(1.0, least=0, most=1e6)
    """Weight of the cross-entropy; 0 trains without it."""
    normalise_losses: bool = True
    """Scale every component so that all have one size, together that of the cross-entropy, before weights count."""
    scale_momentum: float = limited(0.9, least=0, below=1)
    """Of the moving averages of the components that set these scales; 0 takes the step before alone."""

    def __post_init__(self) -> None:
        if not self.loss and self.lm_weight != 1:
            raise ConfigError("--lm-weight needs --loss, such as vanilla; without one there is only the cross-entropy")
        if not self.loss and not self.normalise_losses:
            raise ConfigError("--no-normalise-losses needs --loss, such as vanilla")
        if not self.loss and self.scale_momentum != 0.9:
            raise ConfigError("--scale-momentum needs --loss, such as vanilla")
        names = [spec.name for spec in self.losses()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"--loss names {twice[0]} twice; give it once")
        if self.loss and not self.lm_weight and not any(spec.weight for spec in self.losses()):
            raise ConfigError("--lm-weight and every weight of --loss are 0; give one of them another")

    def losses(self) -> tuple[LossSpec, ...]:
        """The items of --loss, taken apart.

        Raises:
            ConfigError: an item that is no NAME:KEY=VALUE,...
        """
        return tuple(_spec(item) for item in self.loss)


def _spec(item: str) -> LossSpec:
    name, _, rest = item.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not name or not equals or not key.isidentifier() or key in options:
            raise ConfigError(f"--loss {item} must be NAME or NAME:KEY=VALUE,KEY=VALUE, such as vanilla:temperature=2")
        options[key] = _value(value)
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
        raise ConfigError(f"--loss {item}: weight={weight} must be a number of at least 0 and at most 1,000,000")
    return LossSpec(name, float(weight), options)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Where the teacher runs, and how it is laid out there."""

    placement: Literal["none", "separate", "colocated"] = "none"
    """separate: on ranks of its own behind the student's; colocated: in the student's processes, for one GPU."""
    load: str | None = location(None)
    """Run folder or checkpoint of the teacher; what --load names if absent."""
    tensor_model_parallel_size: int = limited(1, least=1, most=RANKS)
    """Ranks that share each weight matrix of a separate teacher."""
    pipeline_model_parallel_size: int = limited(1, least=1, most=RANKS)
    """Stages the layers of a separate teacher are cut into."""
    data_parallel_size: int = limited(1, least=1, most=RANKS)
    """Replicas of a separate teacher; each serves its share of the student's replicas."""
    sequence_parallel: bool = False
    """Split what lies between the tensor-parallel regions of a separate teacher over the sequence."""

    def __post_init__(self) -> None:
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")
        for name in sizes:
            if self.placement != "separate" and getattr(self, name) != 1:
                raise ConfigError(f"--teacher-{name.replace('_', '-')} needs --teacher-placement separate")
        if self.sequence_parallel and self.tensor_model_parallel_size == 1:
            raise ConfigError(
                "--teacher-sequence-parallel needs --teacher-tensor-model-parallel-size of at least 2, not 1"
            )
        if self.load is not None and self.placement == "none":
            raise ConfigError("--teacher-load needs --teacher-placement separate or colocated")

    @property
    def num_ranks(self) -> int:
        """Ranks that are the teacher's alone."""
        if self.placement != "separate":
            return 0
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.data_parallel_size


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What crosses from a separate teacher to the student."""

    wire: Literal["hidden", "logits", "topk"] = "hidden"
    """What --loss vanilla is told of the teacher's logits: the final hidden state (exact, 2 bytes x width a token, the
    student holds a copy of the teacher's output matrix), the logits (exact, 2 bytes x vocabulary), or the largest."""
    top_k: int = limited(64, least=1, most=TOKEN_IDS)
    """Tokens of --bridge-wire topk; the mass of all others crosses too."""
    credits: int = limited(4, least=1, most=1 << 16)
    """Micro-batches that the teacher may be ahead of the student."""
