"""Everything that is decided, and checked, before a process group starts: no torch, no GPU."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from megatron_distill.checkpoint.manifest import (
    Manifest,
    check_same_model,
    find_checkpoint,
    read_latest,
    read_manifest,
)
from megatron_distill.checkpoint.tokenizer_files import find_tokenizer
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig, ModelShape
from megatron_distill.config.run import Layout, RunConfig, layout
from megatron_distill.data.blend import open_blend
from megatron_distill.data.samples import check_length, part_spans
from megatron_distill.data.split import num_windows
from megatron_distill.data.tokenizer import load_tokenizer, vocab_size
from megatron_distill.pruning.when import RemovalSchedule, parse_tokens, tokens_to_iters
from megatron_distill.pruning.where import layers_to_remove

_SCAN_BYTES = 1 << 30  # a larger corpus is checked batch by batch instead, or starting would take minutes


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run, resolved: the model, its layout, the schedule in steps, where it starts."""

    config: RunConfig
    shape: ModelShape
    layout: Layout
    total_iters: int
    warmup_iters: int
    initial_layers: tuple[int, ...]
    removal: RemovalSchedule | None
    resume_from: Path | None
    """The run's own newest checkpoint."""
    load_from: Path | None
    """Weights of another run, when there is nothing to resume."""
    start: int
    """Steps already taken."""
    eod_token: int | None
    """The token that ends a document, where the run asks for it."""
    sample_order: dict[str, Any]
    """What fixes which sample comes when."""
    tokenizer: str | None
    """The tokenizer that checkpoints keep: the run's, or the one that the weights came with."""
    origin: tuple[str, ...]
    """Where the weights came from before training."""

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end before."""
        try:
            result = json.loads((Path(self.config.checkpoint.save) / "result.json").read_text())
        except (OSError, ValueError):
            return False
        ended = result.get("iterations") if isinstance(result, dict) else None
        return self.start == self.total_iters == ended

    @property
    def tokens_per_iter(self) -> int:
        """Tokens of one optimizer step."""
        return self.config.training.global_batch_size * self.config.data.seq_length

    @property
    def total_samples(self) -> int:
        """Samples of the whole run."""
        return self.total_iters * self.config.training.global_batch_size

    def layers_at(self, iteration: int) -> tuple[int, ...]:
        """Original indices of the layers that step `iteration` (0-based) runs through."""
        if self.removal is None:
            return self.initial_layers
        gone = {i for at, layers in self.removal.removal_iterations() if at <= iteration for i in layers}
        return tuple(i for i in self.initial_layers if i not in gone)

    def frozen_at(self, iteration: int) -> frozenset[int]:
        """Of these, the ones that will be removed: they take no gradient from step 0 on."""
        removed = self.removal.removed if self.removal else ()
        return frozenset(removed) & set(self.layers_at(iteration))

    @property
    def last_removal(self) -> int | None:
        """The step before which the last layers leave."""
        return self.removal.removal_iterations()[-1][0] if self.removal else None

    def training_flops(self) -> tuple[float, float]:
        """FLOPs of the whole run: all of them, and as the papers count (6 N D with the final model's N)."""
        seq = self.config.data.seq_length
        true = sum(
            self.tokens_per_iter * self.shape.flops_per_token(seq, len(self.layers_at(i)))
            for i in range(self.total_iters)
        )
        final = self.shape.num_parameters(len(self.layers_at(self.total_iters)))
        after = self.total_iters - (self.last_removal or 0)
        return true, 6.0 * final * self.tokens_per_iter * after


def make_plan(config: RunConfig, world_size: int) -> RunPlan:
    """Resolve and check a run.

    Raises:
        ConfigError: anything a user can have got wrong, in one sentence.
    """
    run = Path(config.checkpoint.save)
    resume_from, own = read_latest(run) or (None, None)
    load_from = find_checkpoint(Path(config.checkpoint.load)) if config.checkpoint.load else None
    source = read_manifest(load_from) if load_from else None
    shape = _shape(config, source, str(config.checkpoint.load))
    if own is not None:
        check_same_model(own, shape, str(run))
        _check_same_optimizer(own, config, run)
    initial = source.layers if source else tuple(range(shape.num_layers))
    total, warmup, removal = _schedule(config, initial)
    plan = RunPlan(
        config=config,
        shape=shape,
        layout=layout(config, world_size, shape.num_attention_heads, shape.padded_vocab_size),
        total_iters=total,
        warmup_iters=warmup,
        initial_layers=initial,
        removal=removal,
        resume_from=resume_from,
        load_from=None if resume_from else load_from,
        start=own.iteration if own else 0,
        eod_token=_eod_token(config, shape),
        sample_order=_sample_order(config, total),
        tokenizer=config.data.tokenizer or (find_tokenizer(load_from, source) if load_from and source else None),
        origin=(str(config.checkpoint.load), *source.origin) if source else (),
    )
    _check_stages(plan)
    _check_model(plan)
    _check_data(plan)
    if own is not None:
        _check_resumed(plan, own, run)
    _check_folder(run)
    _check_wandb(config)
    return plan


def _shape(config: RunConfig, source: Manifest | None, where: str) -> ModelShape:
    vocab = vocab_size(config.data.tokenizer) if config.data.tokenizer else None
    # How long sequences may get is no property of the weights.
    flags = [f for f in fields(ModelConfig) if f.name != "max_position_embeddings"]
    asked = next((f.name for f in flags if getattr(config.model, f.name) != f.default), None)
    if source is None:
        return config.model.shape(vocab)
    if asked and source.shape.block is not None:
        raise ConfigError(
            f"--{asked.replace('_', '-')} does not go with {where}, a {source.shape.family} model that says itself "
            "what it is; leave it out"
        )
    if asked:
        shape = config.model.shape(vocab or source.shape.vocab_size)
        check_same_model(source, shape, where)
    return source.shape


def _eod_token(config: RunConfig, shape: ModelShape) -> int | None:
    data = config.data
    if not (data.reset_position_ids or data.eod_mask_loss):
        return None
    if data.eod_token is None:
        assert data.tokenizer is not None
        return load_tokenizer(data.tokenizer).eod_id
    if data.eod_token >= shape.vocab_size:
        raise ConfigError(f"--eod-token {data.eod_token} must be below the {shape.vocab_size} tokens of the model")
    return data.eod_token


def _check_same_optimizer(own: Manifest, config: RunConfig, run: Path) -> None:
    if own.optimizer != config.optimizer.optimizer:
        raise ConfigError(
            f"{run} was trained with --optimizer {own.optimizer}, not {config.optimizer.optimizer}; "
            "give the same, or another --save folder"
        )


def _schedule(config: RunConfig, initial: tuple[int, ...]) -> tuple[int, int, RemovalSchedule | None]:
    training, optimizer, pruning = config.training, config.optimizer, config.pruning
    per_iter = training.global_batch_size * config.data.seq_length

    def steps(text: str) -> int:
        return tokens_to_iters(parse_tokens(text), per_iter, nominal=training.nominal_tokens)

    total = training.train_iters if training.train_tokens is None else steps(training.train_tokens)
    assert total is not None
    warmup = round(0.04 * total) if optimizer.lr_warmup_iters is None else optimizer.lr_warmup_iters
    if optimizer.lr_warmup_tokens is not None:
        warmup = steps(optimizer.lr_warmup_tokens)
    if warmup >= total:
        raise ConfigError(f"the warm-up of {warmup} steps must be shorter than the run of {total} steps")
    if pruning.pruning_layout is None:
        return total, warmup, None
    is_list = pruning.pruning_layout[0].isdigit()
    count = pruning.pruning_num_layers or (0 if is_list else len(initial) // 2)
    positions = layers_to_remove(pruning.pruning_layout, len(initial), count)
    removal = RemovalSchedule(
        removed=tuple(initial[i] for i in positions),
        seed_iters=steps(pruning.pruning_seed_tokens),
        gap_iters=steps(pruning.pruning_gap_tokens),
    )
    last = removal.removal_iterations()[-1][0]
    if last >= total:
        raise ConfigError(
            f"the last layer would leave at step {last}, but the run has only {total} steps; train longer, or lower "
            "--pruning-seed-tokens or --pruning-gap-tokens"
        )
    return total, warmup, removal


def _check_stages(plan: RunPlan) -> None:
    for iteration in {0, plan.total_iters}:
        count, stages = len(plan.layers_at(iteration)), plan.layout.pipeline
        if count % stages:
            when = " after pruning" if count != len(plan.initial_layers) else ""
            raise ConfigError(
                f"{count} layers{when} must be a multiple of --pipeline-model-parallel-size {stages}; "
                "change one of them"
            )


def _check_model(plan: RunPlan) -> None:
    shape, tp, seq = plan.shape, plan.layout.tensor, plan.config.data.seq_length
    if shape.num_query_groups % tp:
        raise ConfigError(
            f"the {shape.num_query_groups} key and value heads of the model must be a multiple of "
            f"--tensor-model-parallel-size {tp}, because each rank holds whole groups of heads"
        )
    if shape.block is not None and not shape.block.rotary_dim and seq > shape.max_position_embeddings:
        raise ConfigError(
            f"--seq-length {seq} must be at most {shape.max_position_embeddings}, the positions that the model of "
            f"{plan.config.checkpoint.load} has learned"
        )


def _sample_order(config: RunConfig, total_iters: int) -> dict[str, Any]:
    data = config.data
    if data.data_path is None:  # a dry run
        return {}
    blend = open_blend("--data-path", data.data_path)
    # Corpora may have moved since, so not their paths.
    corpora = [f"{corpus.num_tokens} tokens in {corpus.num_documents} documents" for corpus in blend.corpora]
    if blend.weights is not None:
        corpora = [f"{weight:g} x {corpus}" for weight, corpus in zip(blend.weights, corpora, strict=True)]
    order = {
        "seed": config.training.seed,
        "seq-length": data.seq_length,
        "global-batch-size": config.training.global_batch_size,
        "split": data.split,
        "data-order": data.data_order,
        "random-offset": data.random_offset,
        "data-path": f"with {', '.join(corpora)}",
    }
    return order | {"train-iters": total_iters} if data.data_order == "megatron" else order


def _check_resumed(plan: RunPlan, own: Manifest, run: Path) -> None:
    for name, ours in plan.sample_order.items():
        theirs = own.sample_order.get(name, ours)
        if theirs != ours:
            raise ConfigError(
                f"{run} was trained with --{name} {theirs}, not {ours}, which changes what comes when; give the same, "
                f"or start another --save folder with --load {run}"
            )
    if own.iteration > plan.total_iters:
        raise ConfigError(
            f"{run} has taken {own.iteration} steps, more than the {plan.total_iters} of this run; train longer, or "
            "give another --save folder"
        )
    needed = plan.layers_at(own.iteration)
    trainable = set(needed) - plan.frozen_at(own.iteration)
    if not set(needed) <= set(own.layers) or not trainable <= set(own.trainable_layers):
        raise ConfigError(
            f"{run} holds layers {list(own.layers)} at step {own.iteration}, but this run needs {list(needed)} there; "
            "give the pruning flags it was started with, or another --save folder"
        )


def _check_data(plan: RunPlan) -> None:
    data = plan.config.data
    for flag, values in (("--data-path", data.data_path), ("--valid-data-path", data.valid_data_path)):
        if values is None:
            continue
        blend, whole = open_blend(flag, values), flag == "--valid-data-path"
        for corpus in blend.corpora:
            span = (0, corpus.num_tokens) if whole else part_spans(data, corpus)[0]
            num_windows(corpus, span, data.seq_length, random_offset=data.random_offset and not whole)
            if corpus.num_tokens * corpus.dtype.itemsize > _SCAN_BYTES:
                continue
            largest = corpus.max_token()
            if largest >= plan.shape.vocab_size:
                raise ConfigError(
                    f"{flag} {corpus.prefix} has token {largest}, but the model knows only {plan.shape.vocab_size} "
                    "tokens; give the tokenizer it was made with, or a larger --vocab-size"
                )
        if not whole:
            check_length(data, blend, plan.total_samples)


def _check_folder(run: Path) -> None:
    there = next(p for p in (run, *run.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--save {run} cannot be made: {there} is not a folder that can be written to")


def _check_wandb(config: RunConfig) -> None:
    if config.logging.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError("--wandb-project needs wandb: pip install wandb, or leave the flag out")
