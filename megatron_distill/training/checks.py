"""What can be wrong with a run that is resolved: found before any process group starts, in one sentence."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_distill.checkpoint.manifest import NAME, Manifest
from megatron_distill.config.distillation_cost import loss_names
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape, check_sequence
from megatron_distill.config.run import RunConfig
from megatron_distill.data.blend import open_blend
from megatron_distill.data.samples import check_length, part_spans
from megatron_distill.data.split import num_windows
from megatron_distill.optim.learning_rate import learning_rate

from .identity import losses_in_words, objective_in_words

if TYPE_CHECKING:
    from .plan import RunPlan

_SCAN_BYTES = 1 << 30  # a larger corpus is checked batch by batch instead, or starting would take minutes


def check_plan(plan: RunPlan, own: Manifest | None) -> None:
    """All checks of a plan that goes on from `own`, if it does.

    Raises:
        ConfigError: anything that a user can have got wrong.
    """
    run = Path(plan.config.checkpoint.save)
    loss_names(plan.config.distillation.loss)
    _check_stages(plan)
    _check_model(plan)
    _check_data(plan)
    if own is not None:
        _check_resumed(plan, own, run)
        _check_schedule(plan, own, run)
    _check_folder(run)
    if own is None and plan.load_from and plan.load_from.absolute().is_relative_to((run / "checkpoints").absolute()):
        raise ConfigError(
            f"--load {plan.load_from} is a checkpoint of --save {run}, which starts anew and moves its checkpoints "
            "aside; give another --save folder"
        )
    _check_wandb(plan.config)


def notes(plan: RunPlan) -> list[str]:
    """What is allowed, but may not be what was meant: a sentence each."""
    data, said = plan.config.data, []
    for flag, values in (("--data-path", data.data_path), ("--valid-data-path", data.valid_data_path)):
        prefixes = open_blend(flag, values).corpora if values else ()
        places = [os.path.realpath(corpus.prefix) for corpus in prefixes]
        said += [
            f"{flag} names {place} twice, so its text counts twice"
            for place in dict.fromkeys(places)
            if places.count(place) > 1
        ]
    return said


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
    check_groups(plan.shape, plan.layout.tensor, "the model", "--tensor-model-parallel-size")
    check_positions(plan.shape, plan.config.data.seq_length, plan.config.checkpoint.load)


def check_groups(shape: ModelShape, tp: int, whose: str, flag: str) -> None:
    """Raise ConfigError where key and value heads cannot be shared out."""
    if shape.num_query_groups % tp:
        raise ConfigError(
            f"the {shape.num_query_groups} key and value heads of {whose} must be a multiple of {flag} {tp}, because "
            "each rank holds whole groups of heads"
        )


def check_positions(shape: ModelShape, seq: int, where: object) -> None:
    """Raise ConfigError where a model has learned fewer positions than a sample has, or sees fewer tokens."""
    check_sequence(shape, seq, f"--seq-length {seq}", f"the model of {where}")


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
            if plan.teacher is not None and largest >= plan.teacher.shape.vocab_size:
                raise ConfigError(
                    f"{flag} {corpus.prefix} has token {largest}, but the teacher knows only "
                    f"{plan.teacher.shape.vocab_size} tokens; give a corpus or a teacher without such tokens"
                )
        if not whole:
            check_length(data, blend, plan.total_samples)


def _check_resumed(plan: RunPlan, own: Manifest, run: Path) -> None:
    for name, ours in plan.sample_order.items():
        theirs = own.sample_order.get(name, ours)
        if theirs != ours and name == "data-content":
            given = " ".join(plan.config.data.data_path or ())
            raise ConfigError(
                f"{run} was trained on other text than that of --data-path {given}, although it has the same size; "
                f"give the same, or start another --save folder with --load {run}"
            )
        if theirs != ours:
            raise ConfigError(
                f"{run} was trained with --{name} {theirs}, not {ours}, which changes what comes when; give the same, "
                f"or start another --save folder with --load {run}"
            )
    _check_same_objective(plan, own, run)
    batch = own.sample_order.get("global-batch-size")
    if isinstance(batch, int) and own.consumed_samples != own.iteration * batch:
        raise ConfigError(
            f"{run} is damaged: {own.consumed_samples} samples are not {own.iteration} steps of {batch}; start another "
            "--save folder"
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


def _check_schedule(plan: RunPlan, own: Manifest, run: Path) -> None:
    """A run that has got another length has another learning rate at the step where it resumes."""
    optimizer, total, step = plan.config.optimizer, own.schedule.get("total_iters"), own.iteration + 1
    if total in (None, plan.total_iters) or optimizer.override_lr_schedule:
        return
    before, now = (
        learning_rate(
            step,
            peak=optimizer.lr,
            warmup_iters=warmup,
            total_iters=steps,
            min_ratio=optimizer.min_lr_ratio,
            style=optimizer.lr_decay_style,
        )
        for steps, warmup in ((total, own.schedule.get("warmup_iters", 0)), (plan.total_iters, plan.warmup_iters))
    )
    if not math.isclose(before, now, rel_tol=1e-6):
        raise ConfigError(
            f"{run} follows a learning rate over {total} steps, not {plan.total_iters}: at step {step} it would go "
            f"from {before:.3g} to {now:.3g}; give --train-iters {total}, or another --save folder with --load {run}, "
            "or accept the jump with --override-lr-schedule"
        )


def _check_same_objective(plan: RunPlan, own: Manifest, run: Path) -> None:
    """The same losses, and a teacher of the same weights, wherever it is."""
    stored: dict[str, Any] | str = own.objective
    ours: dict[str, Any] | str = plan.objective
    if isinstance(stored, str) and plan.teacher is not None:  # formats 1 and 2
        ours = objective_in_words(plan.config.distillation, plan.teacher.description)
    if (stored or None) == (ours or None):
        return
    same = f"give the same, or start another --save folder with --load {run}"
    if isinstance(stored, dict) and isinstance(ours, dict) and stored | {"teacher": ours.get("teacher")} == ours:
        assert plan.teacher is not None
        raise ConfigError(f"{run} was trained with a teacher of other weights than {plan.teacher.checkpoint}; {same}")
    raise ConfigError(f"{run} was trained with {losses_in_words(stored)}, not {losses_in_words(ours)}; {same}")


def _check_folder(run: Path) -> None:
    if (run / "config.json").exists():
        raise ConfigError(f"--save {run} is a Hugging Face folder, it has a config.json; give another folder")
    if (run / NAME).exists() or (run.parent.name == "checkpoints" and (run.parent.parent / "latest").exists()):
        raise ConfigError(f"--save {run} is within a run; give the folder of a run, or a new one")
    there = next(p for p in (run, *run.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--save {run} cannot be made: {there} is not a folder that can be written to")


def _check_wandb(config: RunConfig) -> None:
    if config.logging.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError("--wandb-project needs wandb: pip install wandb, or leave the flag out")
