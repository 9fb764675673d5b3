"""The flags of tools/plan.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron_distill.config.distillation_cost import METHODS, loss_names
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import COUNT, LONGEST, RANKS, TOKEN_IDS, limited


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How to divide GPUs between teacher and student, and what a run will cost. Example:
    python tools/plan.py --teacher palm-1.1b-paper --layers 12 --gpus 8 --method minilm"""

    teacher: str | None = None
    """Model that teaches: a named size, such as palm-1.1b-paper, or a run or checkpoint folder."""
    student: str | None = None
    """Model that is trained, before layers are removed; the teacher's if absent."""
    layers: int | None = limited(None, least=1, most=10_000)
    """Layers of the student that stay; all if absent."""
    method: Literal["none", "vanilla", "minilm", "homotopic"] = "vanilla"
    """The papers' methods; none is without a teacher."""
    loss: tuple[str, ...] | None = None
    """Instead of --method: the losses besides the cross-entropy, as pretrain_distill.py takes them."""
    gpus: int | None = limited(None, least=1, most=RANKS)
    """Ranks of the whole job, one a GPU."""
    gpus_per_node: int = limited(8, least=1, most=4096)
    """Tensor parallelism stays within a node."""
    device: Literal["a100-80gb", "a100-40gb", "h100", "h200", "cpu"] = "a100-80gb"
    """What each rank runs on."""
    mfu: float = limited(0.4, above=0, most=1)
    """Share of the peak FLOP/s that matrix products reach."""
    teacher_placement: Literal["any", "separate", "colocated"] = "any"
    """Ranks of its own for the teacher, the student's, or whichever is faster."""
    bridge_wire: Literal["hidden", "logits", "topk"] = "hidden"
    """What a teacher on ranks of its own sends for vanilla."""
    bridge_top_k: int = limited(64, least=1, most=TOKEN_IDS)
    """Probabilities a token with --bridge-wire topk."""
    seq_length: int = limited(2048, least=2, most=LONGEST)
    """Tokens in one sample."""
    global_batch_size: int = limited(1024, least=1, most=1 << 24)
    """Samples of one optimizer step, over all ranks."""
    micro_batch_size: int | None = limited(None, least=1, most=1 << 16)
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
    top: int = limited(5, least=1, most=COUNT)
    """Splits to show."""
    json: bool = False
    """Print one JSON object instead of text."""
    papers: bool = False
    """Print the published FLOPs of arXiv:2305.14864 beside ours, and nothing else."""

    def __post_init__(self) -> None:
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
