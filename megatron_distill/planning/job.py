"""What is to be planned, resolved and checked."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_distill.config.distillation_cost import COSTS, Wire, loss_names
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import PRESETS, ModelConfig, ModelShape, check_sequence
from megatron_distill.pruning.when import parse_tokens, tokens_to_iters

from .device import DEVICES, Device
from .request import PlanConfig


@dataclass(frozen=True)
class Model:
    """A decoder as it is given: what it is, and how many of its layers are there."""

    name: str
    shape: ModelShape
    num_layers: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, resolved, except for how its ranks are used."""

    student: Model
    """Before layers are removed."""
    kept_layers: int
    teacher: Model | None
    losses: tuple[str, ...]
    wire: Wire
    topk: int
    placement: str
    gpus: int
    gpus_per_node: int
    device: Device
    mfu: float
    seq_length: int
    global_batch_size: int
    micro_batch_size: int | None
    total_steps: int
    seed_steps: int
    optimizer: str
    recompute: bool

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.global_batch_size * self.seq_length

    @property
    def has_seed_phase(self) -> bool:
        """Whether all layers are trained for a while."""
        return self.seed_steps > 0 and self.kept_layers < self.student.num_layers


def make_job(config: PlanConfig) -> Job:
    """Resolve and check what is to be planned.

    Raises:
        ConfigError: a model that is not there, a teacher that does not fit the method, or tokens that make no run.
    """
    assert config.gpus is not None
    name = config.student or config.teacher
    if name is None:
        raise ConfigError("--student is missing; give a model such as palm-300m-paper, or a run folder")
    student = find_model("--student" if config.student else "--teacher", name)
    teacher = find_model("--teacher", config.teacher) if config.teacher and config.losses else None
    kept = config.layers or student.num_layers
    if kept > student.num_layers:
        raise ConfigError(f"--layers {kept} must be at most {student.num_layers}, the layers of {name}")
    per_step = config.global_batch_size * config.seq_length
    total, seed = (
        tokens_to_iters(parse_tokens(text), per_step, nominal=config.nominal_tokens)
        for text in (config.train_tokens, config.pruning_seed_tokens)
    )
    if seed >= total:
        raise ConfigError(f"--pruning-seed-tokens are {seed} steps, which must be fewer than the run's {total}")
    check_positions(student, config.seq_length)
    if teacher is not None:
        check_positions(teacher, config.seq_length)
        check_pair(student, kept, teacher, config.losses)
    return Job(
        student=student,
        kept_layers=kept,
        teacher=teacher,
        losses=config.losses,
        wire=config.bridge_wire,
        topk=config.bridge_top_k,
        placement="none" if teacher is None else config.teacher_placement,
        gpus=config.gpus,
        gpus_per_node=config.gpus_per_node,
        device=DEVICES[config.device],
        mfu=config.mfu,
        seq_length=config.seq_length,
        global_batch_size=config.global_batch_size,
        micro_batch_size=config.micro_batch_size,
        total_steps=total,
        seed_steps=seed,
        optimizer=config.optimizer,
        recompute=config.recompute_granularity == "full",
    )


def find_model(flag: str, name: str) -> Model:
    """The model of a name or of a folder.

    Raises:
        ConfigError: it is neither.
    """
    if name in PRESETS:
        shape = ModelConfig(model=name).shape()
        return Model(name, shape, shape.num_layers)
    if not Path(name).exists():
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(PRESETS))}"
        raise ConfigError(f"{flag} {name} is no named size and no folder; {hint}")
    manifest = read_manifest(find_checkpoint(Path(name)))
    return Model(name, manifest.shape, len(manifest.layers))


def check_positions(model: Model, seq_length: int) -> None:
    """Raise ConfigError where sequences are longer than a model's learned positions or its sliding window."""
    check_sequence(model.shape, seq_length, f"--seq-length {seq_length}", model.name)


_IN_WORDS = {
    "padded_vocab_size": "padded vocabulary",
    "hidden_size": "width",
    "num_attention_heads": "number of attention heads",
}


def check_pair(student: Model, kept: int, teacher: Model, losses: tuple[str, ...]) -> None:
    """Raise ConfigError unless the teacher has what the losses compare."""
    for loss in sorted(loss_names(losses)):
        for size in COSTS[loss].same:
            own, other = getattr(student.shape, size), getattr(teacher.shape, size)
            if own != other:
                raise ConfigError(
                    f"loss {loss} needs the same {_IN_WORDS[size]} on both sides, but the student {student.name} has "
                    f"{own:,} and the teacher {teacher.name} {other:,}; give another teacher or method"
                )
        if COSTS[loss].layer_taps and kept > teacher.num_layers:
            raise ConfigError(
                f"loss {loss} needs a teacher layer for each of the student's {kept}, but {teacher.name} has "
                f"{teacher.num_layers}; lower --layers"
            )
