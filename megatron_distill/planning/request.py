"""The flags of tools/plan.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron_distill.config.distillation_cost import METHODS, loss_names
from megatron_distill.config.error import ConfigError


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How to divide GPUs between teacher and student, and what a run will cost. Example:
    python tools/plan.py --teacher palm-1.1b-paper --layers 12 --gpus 8 --method minilm"""

    teacher: str | None = None
    """Model that teaches: a named size, such as palm-1.1b-paper, or a run or checkpoint folder."""
    student: str | None = None
    """Model that is trained, before layers are removed; the teacher's if absent."""
    layers: int | None = None
    """Layers of the student that stay; all if absent."""
    method: Literal["none", "vanilla", "minilm", "homotopic"] = "vanilla"
    """The papers' methods; none is without a teacher."""
    loss: tuple[str, ...] | None = None
    """Instead of --method: the losses besides the cross-entropy, as pretrain_distill.py takes them."""
    gpus: int | None = None
    """Ranks of the whole job, one a GPU."""
    gpus_per_node: int = 8
    """Tensor parallelism stays within a node."""
    device: Literal["a100-80gb", "a100-40gb", "h100", "h200", "cpu"] = "a100-80gb"
    """What each rank runs on."""
    mfu: float = 0.4
    """Share of the peak FLOP/s that matrix products reach."""
    teacher_placement: Literal["any", "separate", "colocated"] = "any"
    """Ranks of its own for the teacher, the student's, or whichever is faster."""
    bridge_wire: Literal["hidden", "logits", "topk"] = "hidden"
    """What a teacher on ranks of its own sends for vanilla."""
    bridge_topk: int = 64
    """Probabilities a token with --bridge-wire topk."""
    seq_length: int = 2048
    """Tokens in one sample."""
    global_batch_size: int = 1024
    """Samples of one optimizer step, over all ranks."""
    micro_batch_size: int | None = None
    """Samples at once on a data-parallel rank; the best is looked for if absent."""
    train_tokens: str = "20B"
    """Length of the run, seed phase included."""
    pruning_seed_tokens: str = "0"
    """Tokens before layers are removed, with all of them and without the teacher (1B in the papers)."""
    nominal_tokens: bool = False
    """Count tokens as the papers do: a batch of 2,097,152 is 2M, so 20B are 10,000 steps."""
    optimizer: Literal["lion", "adamw"] = "lion"
    """lion keeps one fp32 moment a weight, adamw two."""
    recompute_granularity: Literal["none", "full"] = "none"
    """full: keep only the input of each layer and compute it again in the backward pass."""
    top: int = 5
    """Splits to show."""
    json: bool = False
    """Print one JSON object instead of text."""
    papers: bool = False
    """Print the published FLOPs of arXiv:2305.14864 beside ours, and nothing else."""

    def __post_init__(self) -> None:
        counts = ("layers", "gpus", "gpus_per_node", "global_batch_size", "micro_batch_size", "bridge_topk", "top")
        for name, least in {**dict.fromkeys(counts, 1), "seq_length": 2}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} {value} must be at least {least}")
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"--mfu {self.mfu} must be above 0 and at most 1")
        if self.papers:
            return
        if self.gpus is None:
            raise ConfigError("--gpus is missing; give the number of ranks of the whole job")
        loss_names(self.losses)
        if self.losses and self.teacher is None:
            raise ConfigError("--teacher is missing; give a model such as palm-1.1b-paper, or --method none")

    @property
    def losses(self) -> tuple[str, ...]:
        """What the method adds to the cross-entropy."""
        return METHODS[self.method] if self.loss is None else self.loss
