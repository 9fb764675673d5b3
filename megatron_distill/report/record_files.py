"""What the files of a run hold, as far as the report reads them: of another type than this, a file is damaged.

Only types are said here; the values stay as they lie in the files. What is missing is None, and what that means for a
table is for the table to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Number = float | None


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """result.json: what a finished run came to."""

    parameters: int | None = None
    tokens: int | None = None
    iterations: int | None = None
    flops: Number = None
    paper_flops: Number = None
    perplexity: Number = None
    initial_perplexity: Number = None
    seconds: Number = None
    tokens_per_s: Number = None
    accelerators: Number = None
    accelerator_hours: Number = None
    mfu: Number = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """The flags on data."""

    data_path: list[str] | str | None = None
    seq_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """The flags on training."""

    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The flags on pruning."""

    pruning_layout: str | None = None
    pruning_gap_tokens: str = "0"


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The flags on distillation."""

    loss: list[str] | None = None
    lm_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The flags on the teacher."""

    placement: str | None = None
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    data_parallel_size: int = 1


@dataclass(frozen=True, kw_only=True)
class Logging:
    """The flags on what a run says."""

    label: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """The flags of a run."""

    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    pruning: Pruning = field(default_factory=Pruning)
    distillation: Distillation = field(default_factory=Distillation)
    teacher: Teacher = field(default_factory=Teacher)
    logging: Logging = field(default_factory=Logging)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The model before pruning."""

    num_layers: int
    hidden_size: int
    vocab_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How ranks share the student."""

    tensor: int
    pipeline: int
    data: int


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """run.json: what a run was asked for, and where it ran."""

    config: Config = field(default_factory=Config)
    shape: Shape | None = None
    layout: Layout | None = None
    total_iters: int | None = None
    removed_layers: list[int] | None = None
    load_from: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    device: str = "unknown"
    started: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricsLine:
    """A line of metrics.jsonl; numbers that are not finite are texts there."""

    kind: str
    iteration: int = -1
    consumed_tokens: int | None = None
    loss: float | str | None = None
    perplexity: float | str | None = None


Values = dict[str, Any]
"""A file as it is, once its types are known to be right."""
