"""All that changes during a run besides tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from megatron_distill.checkpoint.manifest import NAME, Manifest
from megatron_distill.config.error import ConfigError


class TooManySkippedSteps(RuntimeError):
    """The gradient was not finite for --max-nan-steps steps in a row."""


@dataclass
class TrainState:
    """Progress of a run; a checkpoint holds it in full."""

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    flops: float = 0.0
    """True FLOPs spent on training, seed phase and attention included."""
    paper_tokens: int = 0
    """Tokens since the last removal, which is what the papers' FLOPs count."""
    skipped_steps: int = 0
    """Steps whose gradient was not finite."""
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    """Wall time of training, validation and checkpoints left out."""
    unlogged_steps: int = 0
    """Steps since the last line of metrics.jsonl, and what they were."""
    unlogged_seconds: float = 0.0
    unlogged_flops: float = 0.0
    unlogged_loss: float = 0.0
    """Summed over their tokens."""
    unlogged_tokens: int = 0
    component_means: dict[str, float] | None = None
    """Averages of the cross-entropy and each component of the distillation loss, which set the next step's scales."""
    unlogged_components: dict[str, float] = field(default_factory=dict)
    """Of the distillation loss, summed over tokens like `unlogged_loss`."""
    unlogged_wait: float = 0.0
    """Seconds waited for the teacher."""
    taught_seconds: float = 0.0
    """Wall time of the steps that had a teacher."""
    waited_seconds: float = 0.0
    """Of these, spent waiting for it."""
    validated_at: int | None = None
    """The step of the last validation; a run that stopped at a step whose validation is missing makes it first."""
    perplexity: float | None = None
    """At the last validation."""
    initial_perplexity: float | None = None
    """At the first validation of the model in its final shape: before step 0, or right after the last removal."""

    def progress(self) -> dict[str, Any]:
        """What a manifest stores beside the position in the data."""
        stored = {"iteration", "consumed_samples", "consumed_tokens"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in stored}


def resumed_state(manifest: Manifest, checkpoint: Path) -> TrainState:
    """The progress that a checkpoint holds.

    Raises:
        ConfigError: it is not of the types that a run writes.
    """
    # Checkpoints written before 0.2 do not say where they validated, and what they left out they never made up for.
    progress = {"validated_at": manifest.iteration} | manifest.progress
    position = {name: getattr(manifest, name) for name in ("iteration", "consumed_samples", "consumed_tokens")}
    try:
        return msgspec.convert(progress | position, TrainState)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ConfigError(f"{checkpoint / NAME} is damaged: its progress is not that of a run ({error})") from error


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same on every rank."""

    loss: float
    """Mean negative log-likelihood in nats a token, over the global batch."""
    num_tokens: int
    grad_norm: float
    skipped: bool
    stop: bool
    """Some rank was asked to stop."""
    components: dict[str, float] = field(default_factory=dict)
    """Means over the tokens of the global batch of each component of the distillation loss."""
    waited_seconds: float = 0.0
    """For the teacher, on the mean of the last stages."""
