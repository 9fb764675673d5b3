"""A whole run: the sections together, and the checks that need two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .distillation import BridgeConfig, DistillationConfig, TeacherConfig
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
    """Pretrain a decoder, or compress a pretrained one: remove layers and go on training, with a teacher or without."""

    model: ModelConfig = section(ModelConfig)
    parallel: ParallelConfig = section(ParallelConfig)
    data: DataConfig = section(DataConfig)
    training: TrainingConfig = section(TrainingConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    pruning: PruningConfig = section(PruningConfig)
    distillation: DistillationConfig = section(DistillationConfig)
    teacher: TeacherConfig = section(TeacherConfig, prefix="teacher")
    bridge: BridgeConfig = section(BridgeConfig, prefix="bridge")
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    logging: LoggingConfig = section(LoggingConfig)
    dry_run: bool = False
    """Print the resolved run, the rank map, memory and FLOPs, and stop; needs no GPU and no data."""

    OTHER_NAMES: ClassVar[dict[str, str]] = {
        "--bf16": "give --precision bf16",
        "--fp16": "give --precision bf16, or fp32",
        "--fp8": "give --precision bf16, or fp32",
        "--tensorboard-dir": "TensorBoard's files lie in the folder of --save",
        "--num-query-groups": "a PaLM has keys for each head; other models come in by convert_checkpoint.py from-hf",
        "--context-parallel-size": "sequences are not split over ranks but by --sequence-parallel",
        "--untie-embeddings-and-output-weights": "PaLM's output matrix is its embedding table",
        "--tokenizer-model": "give --tokenizer",
        "--tokenizer-type": "give --tokenizer; the file says what it is",
        "--vocab-file": "give --tokenizer, a folder with GPT-2's files",
        "--merge-file": "give --tokenizer, a folder with GPT-2's files",
        "--train-samples": "give --train-iters or --train-tokens",
        "--lr-decay-iters": "the decay ends with the run",
        "--min-lr": "give --min-lr-ratio",
        "--lr-warmup-fraction": "give --lr-warmup-iters or --lr-warmup-tokens",
        "--use-distributed-optimizer": "the optimizer is always sharded; leave it out",
        "--recompute-activations": "give --recompute-granularity full",
        "--ckpt-format": "there is one format; leave it out",
    }
    """What to give instead of flags that Megatron-LM has."""

    def __post_init__(self) -> None:
        if self.data.data_path is None and not self.dry_run:
            raise ConfigError("--data-path is missing; make a corpus with tools/preprocess_data.py and give its prefix")
        if self.data.data_order == "megatron" and not 0 <= self.training.seed < 2**32:
            raise ConfigError(
                f"--seed {self.training.seed} must be at least 0 and below 2^32 with --data-order megatron"
            )
        self._check_teacher()
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

    def _check_teacher(self) -> None:
        placement, losses = self.teacher.placement, self.distillation.loss
        if bool(losses) != (placement != "none"):
            missing = "--teacher-placement separate or colocated" if losses else "--loss, such as vanilla"
            given = f"--loss {' '.join(losses)}" if losses else f"--teacher-placement {placement}"
            raise ConfigError(f"{given} needs {missing}")
        if losses and self.teacher.load is None and self.checkpoint.load is None and not self.dry_run:
            raise ConfigError("a teacher needs --teacher-load, or --load, to say which model it is")
        changed = [
            name for name in ("wire", "top_k", "credits") if getattr(self.bridge, name) != getattr(BridgeConfig(), name)
        ]
        if changed and placement != "separate":
            raise ConfigError(f"--bridge-{changed[0].replace('_', '-')} needs --teacher-placement separate")
        if self.bridge.top_k != BridgeConfig().top_k and self.bridge.wire != "topk":
            raise ConfigError("--bridge-top-k needs --bridge-wire topk")
        if placement == "colocated" and self.parallel.pipeline_model_parallel_size > 1:
            raise ConfigError(
                f"--teacher-placement colocated needs --pipeline-model-parallel-size 1, not "
                f"{self.parallel.pipeline_model_parallel_size}: a pipeline wants it separate"
            )
        if placement == "separate":
            tensor = self.parallel.tensor_model_parallel_size, self.teacher.tensor_model_parallel_size
            for flag, size in zip(("--tensor", "--teacher-tensor"), tensor, strict=True):
                if self.data.seq_length % size:
                    raise ConfigError(
                        f"--seq-length {self.data.seq_length} must be a multiple of {flag}-model-parallel-size {size}: "
                        "each rank sends or takes an equal part of a sequence"
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
    """How the student's ranks are used, of the `world_size` of the whole job.

    Raises:
        ConfigError: heads, vocabulary or world size that do not divide, or a batch that the ranks cannot share.
    """
    tp, pp = config.parallel.tensor_model_parallel_size, config.parallel.pipeline_model_parallel_size
    _check_split("", tp, num_attention_heads, padded_vocab_size)
    teachers = config.teacher.num_ranks
    own = world_size - teachers
    if own < tp * pp or own % (tp * pp):
        have = f"the world has {world_size} {'rank' if world_size == 1 else 'ranks'}"
        if teachers:
            have += f", of which {teachers} are the teacher's; the other {own} are no positive multiple"
        else:
            have += ", which is not a multiple"
        raise ConfigError(
            f"{have} of --tensor-model-parallel-size {tp} x --pipeline-model-parallel-size {pp} = {tp * pp}; start "
            "another number of ranks or change these"
        )
    dp = own // (tp * pp)
    micro, batch = config.training.micro_batch_size, config.training.global_batch_size
    if batch % (micro * dp):
        raise ConfigError(
            f"--global-batch-size {batch} must be a multiple of --micro-batch-size {micro} x data-parallel size "
            f"{dp} = {micro * dp}"
        )
    return Layout(tensor=tp, pipeline=pp, data=dp, num_microbatches=batch // (micro * dp))


def teacher_layout(config: RunConfig, student: Layout, num_attention_heads: int, padded_vocab_size: int) -> Layout:
    """How the teacher's ranks are used: ranks of its own, or those of the student.

    Raises:
        ConfigError: heads or vocabulary that do not divide, or replicas that cannot be shared out.
    """
    if config.teacher.placement == "colocated":
        _check_split("", student.tensor, num_attention_heads, padded_vocab_size)
        return student
    tp, dp = config.teacher.tensor_model_parallel_size, config.teacher.data_parallel_size
    _check_split("teacher-", tp, num_attention_heads, padded_vocab_size)
    if dp % student.data and student.data % dp:
        raise ConfigError(
            f"--teacher-data-parallel-size {dp} and the student's data-parallel size {student.data} must divide one "
            "another, so that each teacher serves as many students, or the other way round"
        )
    pipeline = config.teacher.pipeline_model_parallel_size
    return Layout(tensor=tp, pipeline=pipeline, data=dp, num_microbatches=student.num_microbatches)


def _check_split(prefix: str, tp: int, num_attention_heads: int, padded_vocab_size: int) -> None:
    flag = f"--{prefix}tensor-model-parallel-size {tp}"
    if num_attention_heads % tp:
        whose = "--num-attention-heads" if not prefix else "the teacher's number of attention heads,"
        raise ConfigError(f"{whose} {num_attention_heads} must be a multiple of {flag}")
    if padded_vocab_size % tp:
        raise ConfigError(
            f"the padded vocabulary {padded_vocab_size} must be a multiple of {flag}; "
            "change --make-vocab-size-divisible-by"
        )
