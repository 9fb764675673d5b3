"""A whole run: the sections together, and the checks that need two of them."""

from __future__ import annotations

from dataclasses import dataclass

from .error import ConfigError
from .flags import section
from .model import ModelConfig
from .sections import (
    CheckpointConfig,
    DataConfig,
    LoggingConfig,
    OptimizerConfig,
    ParallelConfig,
    PruningConfig,
    TrainingConfig,
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Pretrain a decoder, or compress a pretrained one: remove layers and go on training."""

    model: ModelConfig = section(ModelConfig)
    parallel: ParallelConfig = section(ParallelConfig)
    data: DataConfig = section(DataConfig)
    training: TrainingConfig = section(TrainingConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    pruning: PruningConfig = section(PruningConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    logging: LoggingConfig = section(LoggingConfig)
    dry_run: bool = False
    """Print the resolved run, the rank map, memory and FLOPs, and stop; needs no GPU and no data."""

    def __post_init__(self) -> None:
        if self.data.data_path is None and not self.dry_run:
            raise ConfigError("--data-path is missing; make a corpus with tools/preprocess_data.py and give its prefix")
        if self.data.data_order == "megatron" and not 0 <= self.training.seed < 2**32:
            raise ConfigError(
                f"--seed {self.training.seed} must be at least 0 and below 2^32 with --data-order megatron"
            )
        tp = self.parallel.tensor_model_parallel_size
        if self.parallel.sequence_parallel and self.data.seq_length % tp:
            raise ConfigError(
                f"--seq-length {self.data.seq_length} must be a multiple of --tensor-model-parallel-size {tp} "
                "with --sequence-parallel"
            )
        if self.data.seq_length > self.model.max_position_embeddings:
            raise ConfigError(
                f"--seq-length {self.data.seq_length} is longer than --max-position-embeddings "
                f"{self.model.max_position_embeddings}; raise the latter"
            )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checked factorisation of one role's ranks; ranks are numbered tensor first, then data, then pipeline."""

    tensor: int
    pipeline: int
    data: int
    num_microbatches: int

    @property
    def world_size(self) -> int:
        """Ranks of the role."""
        return self.tensor * self.pipeline * self.data


def layout(config: RunConfig, world_size: int, num_attention_heads: int, padded_vocab_size: int) -> Layout:
    """How `world_size` ranks are used.

    Raises:
        ConfigError: heads, vocabulary or world size that do not divide, or a batch that the ranks cannot share.
    """
    tp, pp = config.parallel.tensor_model_parallel_size, config.parallel.pipeline_model_parallel_size
    if num_attention_heads % tp:
        raise ConfigError(
            f"--num-attention-heads {num_attention_heads} must be a multiple of --tensor-model-parallel-size {tp}"
        )
    if padded_vocab_size % tp:
        raise ConfigError(
            f"the padded vocabulary {padded_vocab_size} must be a multiple of --tensor-model-parallel-size {tp}; "
            "change --make-vocab-size-divisible-by"
        )
    if world_size % (tp * pp):
        raise ConfigError(
            f"the world has {world_size} ranks, which is not a multiple of --tensor-model-parallel-size {tp} x "
            f"--pipeline-model-parallel-size {pp} = {tp * pp}; start another number of ranks or change these"
        )
    dp = world_size // (tp * pp)
    micro, batch = config.training.micro_batch_size, config.training.global_batch_size
    if batch % (micro * dp):
        raise ConfigError(
            f"--global-batch-size {batch} must be a multiple of --micro-batch-size {micro} x data-parallel size "
            f"{dp} = {micro * dp}"
        )
    return Layout(tensor=tp, pipeline=pp, data=dp, num_microbatches=batch // (micro * dp))
