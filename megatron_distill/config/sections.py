"""The sections of a run besides the model: layout, data, training, optimizer, pruning, checkpoints, logging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .error import ConfigError
from .limits import COUNT, LONGEST, RANKS, TOKEN_IDS, limited, location


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the model is laid out over its ranks; the data-parallel size is what is left of the world."""

    tensor_model_parallel_size: int = limited(1, least=1, most=RANKS)
    """Ranks that share each weight matrix."""
    pipeline_model_parallel_size: int = limited(1, least=1, most=RANKS)
    """Stages the layers are cut into."""
    sequence_parallel: bool = False
    """Split what lies between the tensor-parallel regions over the sequence."""
    overlap_grad_reduce: bool = True
    """Reduce gradients during the backward pass (GPU only)."""
    overlap_param_gather: bool = False
    """Gather updated weights during the next forward pass (GPU only)."""
    distributed_timeout_minutes: float = limited(10.0, least=0.01, most=10080)
    """A collective that takes longer than this ends the job."""

    def __post_init__(self) -> None:
        if self.sequence_parallel and self.tensor_model_parallel_size == 1:
            raise ConfigError("--sequence-parallel needs --tensor-model-parallel-size of at least 2, not 1")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The text."""

    data_path: tuple[str, ...] | None = location(None)
    """Prefix of the training corpus: PREFIX.bin and PREFIX.idx, as tools/preprocess_data.py writes them. Several are
    blended by their sizes, or by a weight before each: 0.7 prose 0.3 code."""
    valid_data_path: tuple[str, ...] | None = location(None)
    """Prefixes of the validation corpora; without them, the share of --data-path that --split says."""
    split: str = "969,30,1"
    """Shares of documents for training, validation and test."""
    tokenizer: str | None = location(None)
    """tokenizer.json, a folder with one, or a SentencePiece .model: sets the vocabulary, goes with exports."""
    seq_length: int = limited(2048, least=2, most=LONGEST)
    """Tokens in one sample."""
    data_order: Literal["stream", "megatron"] = "stream"
    """stream: windows of the text, permuted without a table; megatron: index for index megatron-core's GPTDataset."""
    random_offset: bool = False
    """Shift each sample by up to --seq-length - 1 tokens, anew each time it is read, as Baby Llama does."""
    reset_position_ids: bool = False
    """Count positions from 0 again after the end of a document; rotary embeddings do not read them."""
    eod_mask_loss: bool = False
    """Leave out of the loss what is predicted from the end of a document."""
    eod_token: int | None = limited(None, least=0, below=TOKEN_IDS)
    """Token that ends a document; the tokenizer's if absent."""

    def __post_init__(self) -> None:
        if self.random_offset and self.data_order == "megatron":
            raise ConfigError("--random-offset needs --data-order stream, not megatron")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at once, in which precision."""

    micro_batch_size: int = limited(1, least=1, most=1 << 16)
    """Samples that pass through the model at once on one data-parallel rank."""
    global_batch_size: int = limited(1, least=1, most=1 << 24)
    """Samples of one optimizer step, over all ranks."""
    train_iters: int | None = limited(None, least=1, most=COUNT)
    """Optimizer steps."""
    train_tokens: str | None = None
    """Instead of --train-iters: tokens, such as 20B."""
    nominal_tokens: bool = False
    """Count tokens as the papers do: a batch of 2,097,152 is 2M, so 20B are 10,000 steps."""
    exit_interval: int | None = limited(None, least=1, most=COUNT)
    """Save and stop after this step, as if interrupted; the same command goes on from there."""
    eval_interval: int = limited(1000, least=1, most=COUNT)
    """Steps between validations; one always happens before the first step and after the last."""
    eval_iters: int | None = limited(None, least=1, most=COUNT)
    """Global batches a validation reads; all of the validation corpus if absent."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Weights and activations; auto is bf16 where the device has it in hardware, else fp32. Master weights are fp32."""
    attention_backend: Literal["auto", "te", "flash", "sdpa"] = "auto"
    """Attention kernels; auto takes the best that is installed."""
    recompute_granularity: Literal["none", "full"] = "none"
    """full: recompute every layer in the backward pass instead of keeping its activations."""
    seed: int = limited(1234, least=-(1 << 63), below=1 << 63)
    """Of initial weights and of the order of the data."""
    max_nan_steps: int = limited(10, least=1, most=COUNT)
    """Steps with a gradient that is not finite are skipped; this many in a row stop the run."""

    def __post_init__(self) -> None:
        if (self.train_iters is None) == (self.train_tokens is None):
            raise ConfigError("give exactly one of --train-iters and --train-tokens")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    optimizer: Literal["lion", "adamw"] = "lion"
    """lion (arXiv:2302.06675) or adamw."""
    lr: float = limited(3e-4, least=0, most=1e20)
    """Peak learning rate."""
    min_lr_ratio: float = limited(0.1, least=0, most=1)
    """Last learning rate over the peak."""
    lr_decay_style: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    override_lr_schedule: bool = False
    """Resume although another --train-iters makes the learning rate jump."""
    lr_warmup_iters: int | None = limited(None, least=0, most=COUNT)
    """Steps from 0 to the peak; 4 % of the run if neither this nor --lr-warmup-tokens is given."""
    lr_warmup_tokens: str | None = None
    """Instead of --lr-warmup-iters: tokens, such as 800M."""
    weight_decay: float = limited(1e-4, least=0, most=1000)
    """Decay; what it is multiplied with, --decay-semantics says."""
    decay_semantics: Literal["schedule", "lr"] = "schedule"
    """schedule: weights shrink by decay x lr / peak lr a step, as in the papers; lr: by decay x lr, as in AdamW."""
    decay_embeddings: bool = False
    """Let the embedding table decay too; biases and norms never do."""
    beta1: float = limited(0.9, least=0, below=1)
    """Lion or AdamW beta 1."""
    beta2: float = limited(0.95, least=0, below=1)
    """Lion or AdamW beta 2."""
    adam_eps: float = limited(1e-8, above=0, most=1)
    """AdamW epsilon."""
    clip_grad: float = limited(1.0, least=0, most=1e9)
    """Global L2 norm gradients are clipped to; 0 is off."""

    def __post_init__(self) -> None:
        if self.lr_warmup_iters is not None and self.lr_warmup_tokens is not None:
            raise ConfigError("give at most one of --lr-warmup-iters and --lr-warmup-tokens")
        if self.optimizer == "adamw" and self.decay_semantics == "schedule":
            raise ConfigError("--optimizer adamw needs --decay-semantics lr (schedule is Lion's, as in the papers)")


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """Which layers leave, and when (arXiv:2305.14864); off unless --pruning-layout is given."""

    pruning_layout: str | None = None
    """max-gap, input, output, both, middle, alt-input, alt-output, alt-both, alt-middle, or layers such as 1,3,5-8."""
    pruning_num_layers: int | None = limited(None, least=1, most=10_000)
    """Layers to remove; half of them if absent (and the layout is not a list)."""
    pruning_seed_tokens: str = "0"
    """Tokens to train on before the first removal, with the layers that will go frozen (1B in the papers)."""
    pruning_gap_tokens: str = "0"
    """Tokens between one removal and the next (0, 100M, 500M, 1B in the papers); 0 removes all at once."""

    def __post_init__(self) -> None:
        if self.pruning_layout is None and self.pruning_num_layers is not None:
            raise ConfigError("--pruning-num-layers needs --pruning-layout, such as max-gap")
        for flag, tokens in (("seed", self.pruning_seed_tokens), ("gap", self.pruning_gap_tokens)):
            if self.pruning_layout is None and tokens != "0":
                raise ConfigError(f"--pruning-{flag}-tokens needs --pruning-layout, such as max-gap")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where a run lives and what it starts from."""

    save: str = location()
    """The run's folder: checkpoints, metrics.jsonl, TensorBoard, the resolved configuration. If it holds a checkpoint,
    the run goes on from there."""
    load: str | None = location(None)
    """Run folder or checkpoint whose weights a new run starts from (its optimizer state is not used)."""
    save_interval: int = limited(1000, least=1, most=COUNT)
    """Steps between checkpoints; one is always written at the end."""
    keep_checkpoints: int = limited(2, least=0, most=COUNT)
    """Newest checkpoints to keep; 0 keeps all."""
    save_retain_interval: int = limited(0, least=0, most=COUNT)
    """Also keep every checkpoint of a multiple of that many steps, for good; 0 keeps none."""
    async_save: bool = False
    """Train on while a checkpoint is written. It counts when it is complete, some steps later; needs memory on the host
    for what is written."""

    def __post_init__(self) -> None:
        inside = next((p for p in (Path(self.save), *Path(self.save).parents) if p.parent.name == "checkpoints"), None)
        if inside is not None and inside.name.startswith("iter_"):
            raise ConfigError(
                f"--save {self.save} lies in a checkpoint of {inside.parent.parent}, which that run removes with it; "
                "give a folder outside of it"
            )


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is told while the run goes on."""

    log_interval: int = limited(10, least=1, most=COUNT)
    """Steps between lines of metrics.jsonl and TensorBoard."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project (wandb must be installed)."""
    label: tuple[str, ...] = ()
    """KEY=VALUE, kept in run.json: what a run stands for in a report (tools/report.py reads model, checkpoint, gap)."""

    def __post_init__(self) -> None:
        keys = [item.partition("=")[0] for item in self.label]
        for item, key in zip(self.label, keys, strict=True):
            if not key or "=" not in item:
                raise ConfigError(f"--label {item} must be KEY=VALUE, such as model=300M")
            if keys.count(key) > 1:
                raise ConfigError(f"--label names {key} twice; give it once")
