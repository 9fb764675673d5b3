"""What a run must have in common with what it resumes, loads and learns from: tokenizers, teacher and losses.

All of them are compared by content, not by path or by description. Where a record is missing nothing is claimed.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_distill.checkpoint.manifest import Manifest
from megatron_distill.checkpoint.tokenizer_files import (
    check_readable,
    common_ids,
    find_tokenizer,
    identity_of,
    tokenizer_path,
)
from megatron_distill.config.distillation import DistillationConfig
from megatron_distill.config.error import ConfigError
from megatron_distill.config.run import RunConfig
from megatron_distill.data.blend import open_blend
from megatron_distill.data.corpus_record import read_corpus_record
from megatron_distill.data.tokenizer import fingerprint, vocabulary


@dataclass(frozen=True)
class KnownTokenizer:
    """A tokenizer and whose it is."""

    whose: str
    fingerprint: str
    path: Path | None
    """None where only the fingerprint is known."""


def tokenizer_of(whose: str, checkpoint: Path, manifest: Manifest) -> KnownTokenizer | None:
    """The tokenizer that a checkpoint was trained with, None if it does not say.

    Raises:
        ConfigError: it cannot be read.
    """
    known = identity_of(checkpoint, manifest)
    if known is None:
        return None
    path = tokenizer_path(checkpoint, manifest)
    return KnownTokenizer(whose, known, path if path and path.exists() else None)


def given_tokenizer(path: str) -> KnownTokenizer:
    """The tokenizer of --tokenizer.

    Raises:
        ConfigError: it cannot be read.
    """
    check_readable(path)
    return KnownTokenizer(f"--tokenizer {path}", fingerprint(path), Path(path))


def check_same_tokenizer(one: KnownTokenizer | None, other: KnownTokenizer | None, remedy: str) -> None:
    """Raise ConfigError if both are known and their vocabularies differ."""
    if one is None or other is None or one.fingerprint == other.fingerprint:
        return
    alike = f": {common_ids(one.path, other.path)}" if one.path and other.path else ""
    raise ConfigError(f"{one.whose} is another tokenizer than that of {other.whose}{alike}; {remedy}")


def check_agreeing_tokenizers(one: KnownTokenizer | None, other: KnownTokenizer | None, remedy: str) -> None:
    """Raise ConfigError if both are known and an id that both of them use means different tokens.

    So one may have tokens that the other lacks. Where only a fingerprint is known, the vocabularies must be equal.
    """
    if one and other and one.path and other.path and one.fingerprint != other.fingerprint:
        tokens, others = ({i: token for token, i in vocabulary(path).items()} for path in (one.path, other.path))
        if all(tokens[i] == others[i] for i in tokens.keys() & others.keys()):
            return
    check_same_tokenizer(one, other, remedy)


def choose_tokenizer(
    config: RunConfig, *sources: tuple[str, Path | None, Manifest | None]
) -> tuple[str | None, KnownTokenizer | None]:
    """The tokenizer to keep, and what is known of it: that of the first of `sources`, the run itself, so that it keeps
    the files that it began with; else that of --tokenizer, else that of the next source. Those of all must be the same.

    Raises:
        ConfigError: they differ, or one cannot be read.
    """
    path, known = None, None
    if config.data.tokenizer:
        path, known = config.data.tokenizer, given_tokenizer(config.data.tokenizer)
    for number, (whose, checkpoint, manifest) in enumerate(sources):
        if checkpoint is None or manifest is None:
            continue
        theirs = tokenizer_of(whose, checkpoint, manifest)
        check_same_tokenizer(
            known, theirs, "give the tokenizer that the model was trained with, or leave --tokenizer out"
        )
        if manifest.tokenizer is None or (path is not None and number > 0):
            continue
        with nullcontext() if path is None else suppress(ConfigError):  # a damaged copy is replaced by what is given
            path, known = find_tokenizer(checkpoint, manifest), theirs
    return path, known


def check_corpora(config: RunConfig, model: KnownTokenizer | None) -> None:
    """Raise ConfigError if a corpus records another tokenizer than the model's, as far as both are known."""
    data = config.data
    for flag, values in (("--data-path", data.data_path), ("--valid-data-path", data.valid_data_path)):
        for prefix in open_blend(flag, values).prefixes if values and model else ():
            record = read_corpus_record(prefix)
            if record is not None:
                corpus = KnownTokenizer(f"the one that made {flag} {prefix}", record.tokenizer, None)
                check_same_tokenizer(
                    corpus, model, "preprocess the text with the model's tokenizer, or give the corpus that it made"
                )


def objective(chosen: DistillationConfig, teacher: str) -> dict[str, Any]:
    """What is learned from the teacher with the fingerprint `teacher`, as a manifest keeps it."""
    losses = sorted((spec.name, spec.weight, sorted(spec.options.items())) for spec in chosen.losses())
    return {
        "losses": [{"name": name, "weight": weight, "options": dict(options)} for name, weight, options in losses],
        "lm_weight": chosen.lm_weight,
        "normalise": chosen.normalise_losses,
        "teacher": teacher,
    }


def objective_in_words(chosen: DistillationConfig, teacher: str) -> str:
    """The same as formats 1 and 2 of manifests have it, with the teacher's description."""
    scaling = "" if chosen.normalise_losses else ", not normalised"
    return f"--loss {' '.join(chosen.loss)}, --lm-weight {chosen.lm_weight:g}{scaling}, of {teacher}"


def losses_in_words(stored: dict[str, Any] | str) -> str:
    """A manifest's objective for an error message."""
    if not isinstance(stored, dict):
        return stored or "no teacher"
    if not stored:
        return "no teacher"
    losses = stored.get("losses")
    items = [_loss_in_words(loss) for loss in losses if isinstance(loss, dict)] if isinstance(losses, list) else []
    scaling = "" if stored.get("normalise") else " --no-normalise-losses"
    return f"--loss {' '.join(items)} --lm-weight {stored.get('lm_weight')}{scaling}"


def _loss_in_words(loss: dict[str, Any]) -> str:
    options = loss.get("options")
    values = {"weight": loss.get("weight")} | (options if isinstance(options, dict) else {})
    return f"{loss.get('name')}:{','.join(f'{key}={value}' for key, value in values.items())}"
