"""Everything that is decided, and checked, before a process group starts: no torch, no GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from megatron_distill.checkpoint.checksum import sample_checksum
from megatron_distill.checkpoint.entries import check_entries
from megatron_distill.checkpoint.manifest import (
    Manifest,
    check_same_model,
    find_checkpoint,
    read_latest,
    read_manifest,
)
from megatron_distill.config.cost import paper_flops
from megatron_distill.config.distillation_cost import method_flops_per_token
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout, RunConfig, layout, teacher_layout
from megatron_distill.data.blend import open_blend
from megatron_distill.data.corpus_record import recorded_eod
from megatron_distill.data.tokenizer import load_tokenizer, vocab_size
from megatron_distill.losses.total import Normalisation
from megatron_distill.pruning.when import RemovalSchedule, parse_tokens, tokens_to_iters
from megatron_distill.pruning.where import is_list, layers_to_remove

from . import checks, identity


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """The teacher of a run, resolved."""

    checkpoint: Path
    shape: ModelShape
    layers: tuple[int, ...]
    """Original indices of the layers it has."""
    layout: Layout
    separate: bool
    """Whether it has ranks of its own, the last of the job."""
    description: str
    """Its size and training, for people."""
    fingerprint: str
    """Identity of its weights, wherever they are; "" in a dry run that has none yet."""


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
    teacher: TeacherPlan | None
    distils_from: int
    """The first step (0-based) with a teacher: the one after the seed phase."""
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
    tokenizer_fingerprint: str | None
    """Identity of its vocabulary."""
    generation: dict[str, Any]
    """What the public model that the weights come from says about generating text."""
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
    def num_ranks(self) -> int:
        """Ranks of the whole job, a teacher's own included."""
        own = self.teacher.layout.world_size if self.teacher and self.teacher.separate else 0
        return self.layout.world_size + own

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
    def normalisation(self) -> Normalisation:
        """How the components of the distillation loss are brought to one size."""
        chosen = self.config.distillation
        return Normalisation(chosen.normalise_losses, momentum=chosen.scale_momentum)

    @property
    def objective(self) -> dict[str, Any]:
        """What is learned from which teacher; empty without one."""
        if self.teacher is None:
            return {}
        return identity.objective(self.config.distillation, self.teacher.fingerprint)

    @property
    def last_removal(self) -> int | None:
        """The step before which the last layers leave."""
        return self.removal.removal_iterations()[-1][0] if self.removal else None

    def distils_at(self, iteration: int) -> bool:
        """Whether step `iteration` (0-based) learns from a teacher."""
        return self.teacher is not None and iteration >= self.distils_from

    def measures_at(self, iteration: int) -> bool:
        """Whether step `iteration` (0-based) is measured before it is trained on: the first with a teacher, and the
        first without certain layers, have none before them that could set the scales of their losses."""
        removals = [at for at, _ in self.removal.removal_iterations()] if self.removal else []
        return self.distils_at(iteration) and iteration in (self.distils_from, *removals)

    def step_flops(self, iteration: int) -> float:
        """True FLOPs of step `iteration` (0-based), of both roles."""
        return self.tokens_per_iter * sum(self.flops_per_token(iteration))

    def flops_per_token(self, iteration: int) -> tuple[float, float]:
        """True FLOPs of a token in step `iteration` (0-based), on the student's ranks and on the teacher's."""
        teacher = self.teacher if self.distils_at(iteration) else None
        return method_flops_per_token(
            self.shape,
            len(self.layers_at(iteration)),
            teacher.shape if teacher else None,
            len(teacher.layers) if teacher else 0,
            self.config.data.seq_length,
            self.config.distillation.loss if teacher else (),
            wire=self.config.bridge.wire,
        )

    def paper_flops(self, tokens: int) -> float:
        """FLOPs of training on `tokens` after the last removal, as the papers count."""
        teacher = self.teacher.shape.num_parameters(len(self.teacher.layers)) if self.teacher else 0
        return paper_flops(self.shape.num_parameters(len(self.layers_at(self.total_iters))), tokens, teacher)

    def training_flops(self) -> tuple[float, float]:
        """FLOPs of the whole run: all of them, and as the papers count."""
        after = self.total_iters - (self.last_removal or 0)
        true = sum(len(phase) * self.step_flops(phase.start) for phase in self.phases)
        return true, self.paper_flops(self.tokens_per_iter * after)

    @property
    def phases(self) -> tuple[range, ...]:
        """Consecutive steps (0-based) that are alike: the same layers, and the teacher in all or in none of them."""
        removals = [at for at, _ in self.removal.removal_iterations()] if self.removal else []
        borders = sorted({0, self.total_iters, *(at for at in (self.distils_from, *removals) if at < self.total_iters)})
        return tuple(range(first, end) for first, end in pairwise(borders))


def make_plan(config: RunConfig, world_size: int) -> RunPlan:
    """Resolve and check a run.

    Raises:
        ConfigError: anything a user can have got wrong, in one sentence.
    """
    run = Path(config.checkpoint.save)
    check_entries(run)
    resume_from, own = read_latest(run) or (None, None)
    load_from = find_checkpoint(Path(config.checkpoint.load)) if config.checkpoint.load else None
    source = read_manifest(load_from) if load_from else None
    shape = _shape(config, source, str(config.checkpoint.load))
    if own is not None:
        check_same_model(own, shape, str(run))
        _check_same_optimizer(own, config, run)
    initial = source.layers if source else tuple(range(shape.num_layers))
    kept, model_tokenizer = identity.choose_tokenizer(
        config, (str(run), resume_from, own), (f"--load {config.checkpoint.load}", load_from, source)
    )
    total, warmup, removal = _schedule(config, initial)
    lay = layout(config, world_size, shape.num_attention_heads, shape.padded_vocab_size)
    plan = RunPlan(
        config=config,
        shape=shape,
        layout=lay,
        total_iters=total,
        warmup_iters=warmup,
        initial_layers=initial,
        removal=removal,
        teacher=_teacher(config, lay, shape, model_tokenizer),
        distils_from=removal.seed_iters if removal else 0,
        resume_from=resume_from,
        load_from=None if resume_from else load_from,
        start=own.iteration if own else 0,
        eod_token=_eod_token(config, shape),
        sample_order=_sample_order(config, total),
        tokenizer=kept,
        tokenizer_fingerprint=model_tokenizer.fingerprint if model_tokenizer else None,
        generation=source.generation if source else {},
        origin=(str(config.checkpoint.load), *source.origin) if source else (),
    )
    checks.check_plan(plan, own)
    identity.check_corpora(config, model_tokenizer)
    return plan


def _shape(config: RunConfig, source: Manifest | None, where: str) -> ModelShape:
    vocab = vocab_size(config.data.tokenizer) if config.data.tokenizer else None
    shape = config.model.shape(vocab) if source is None else _shape_of_source(config, source, vocab, where)
    if vocab is not None and vocab > shape.vocab_size:
        raise ConfigError(
            f"--tokenizer {config.data.tokenizer} has {vocab:,} tokens, more than the {shape.vocab_size:,} of the "
            "model; give its own tokenizer" + (", or a larger --vocab-size" if source is None else "")
        )
    return shape


def _shape_of_source(config: RunConfig, source: Manifest, vocab: int | None, where: str) -> ModelShape:
    """The model of --load, after checking that flags which describe a model describe this one."""
    given = config.model.given()
    named = [*given, *(["model"] if config.model.model is not None else [])]
    if named and source.shape.block is not None:
        raise ConfigError(
            f"--{named[0].replace('_', '-')} does not go with {where}, a {source.shape.family} model that says itself "
            "what it is; leave it out"
        )
    if config.model.model is not None:
        check_same_model(source, config.model.shape(vocab or source.shape.vocab_size), where)
    for name in given:
        value = getattr(config.model, name)
        if name == "make_vocab_size_divisible_by":
            fits, theirs = source.shape.padded_vocab_size % value == 0, f"{source.shape.padded_vocab_size} rows"
        else:
            fits, theirs = getattr(source.shape, name, value) == value, getattr(source.shape, name, value)
        if not fits:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value} does not go with {where}, which has {theirs}; leave the flag out")
    return source.shape


def _teacher(
    config: RunConfig, student: Layout, unpruned: ModelShape, tokenizer: identity.KnownTokenizer | None
) -> TeacherPlan | None:
    if config.teacher.placement == "none":
        return None
    named = config.teacher.load or config.checkpoint.load
    if named is None:  # a dry run from fresh weights, whose teacher would be what it starts from
        checkpoint, shape, layers, tokens = Path("none-yet"), unpruned, tuple(range(unpruned.num_layers)), 0
        mark = ""
    else:
        checkpoint = find_checkpoint(Path(named))
        manifest = read_manifest(checkpoint)
        shape, layers, tokens = manifest.shape, manifest.layers, manifest.consumed_tokens
        mark = manifest.fingerprint
        theirs = identity.tokenizer_of(f"the teacher {named}", checkpoint, manifest)
        identity.check_agreeing_tokenizers(
            theirs, tokenizer, "a student and its teacher compare token by token, so give a teacher with the same one"
        )
    lay = teacher_layout(config, student, shape.num_attention_heads, shape.padded_vocab_size)
    checks.check_groups(shape, lay.tensor, "the teacher", "--teacher-tensor-model-parallel-size")
    if len(layers) % lay.pipeline:
        raise ConfigError(
            f"the teacher's {len(layers)} layers must be a multiple of --teacher-pipeline-model-parallel-size "
            f"{lay.pipeline}; change it"
        )
    checks.check_positions(shape, config.data.seq_length, checkpoint)
    kept = f"{len(layers)} of {shape.num_layers} layers x {shape.hidden_size}"
    return TeacherPlan(
        checkpoint=checkpoint,
        shape=shape,
        layers=layers,
        layout=lay,
        separate=config.teacher.placement == "separate",
        description=f"a {shape.family} of {kept} after {tokens} tokens",
        fingerprint=mark,
    )


def _eod_token(config: RunConfig, shape: ModelShape) -> int | None:
    data = config.data
    if data.eod_token is not None and data.eod_token >= shape.vocab_size:
        raise ConfigError(f"--eod-token {data.eod_token} must be below the {shape.vocab_size} tokens of the model")
    if not (data.reset_position_ids or data.eod_mask_loss):
        return None
    if data.eod_token is None:
        recorded = recorded_eod(open_blend("--data-path", data.data_path).prefixes) if data.data_path else None
        if recorded is not None:
            return recorded
        if data.tokenizer is None:
            raise ConfigError(
                "--reset-position-ids and --eod-mask-loss need --tokenizer or --eod-token: no corpus of --data-path "
                "records the token that ends its documents"
            )
        return load_tokenizer(data.tokenizer).eod_id
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
    count = pruning.pruning_num_layers or (0 if is_list(pruning.pruning_layout) else len(initial) // 2)
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
        "data-content": [sample_checksum(Path(f"{c.prefix}.{kind}")) for c in blend.corpora for kind in ("bin", "idx")],
    }
    return order | {"train-iters": total_iters} if data.data_order == "megatron" else order
