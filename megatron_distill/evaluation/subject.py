"""Which model is scored, told by its weights and its tokenizer and not by its name, and where its scores are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron_distill.checkpoint import tokenizer_files
from megatron_distill.checkpoint.inference import StoredModel, find_model
from megatron_distill.config.error import ConfigError

from .request import Evaluation, digest
from .score_file import FILE

_WEIGHTS = ("config.json", "*.safetensors", "*.bin", "*.index.json")


@dataclass(frozen=True)
class Subject:
    """What a score is of."""

    name: str
    """In a file of scores: `iter_0000100` of a run, the path of any other model."""
    weights: str
    """Fingerprint."""
    tokenizer: str | None
    """SHA-256 of its files."""
    file: Path | None
    """`RUN/evaluation.json`; None for a model that is no run's."""
    stored: StoredModel | None
    """None where the harness's backend reads a model that no family here does."""

    @property
    def iteration(self) -> int | None:
        """Optimizer steps; None for a model that is no run's."""
        return self.stored.iteration if self.stored else None


def find_subject(asked: Evaluation) -> Subject:
    """The model that is to be scored.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        stored = find_model(asked.model)
    except ConfigError:
        if asked.backend != "hf" or not (asked.model / "config.json").is_file():
            raise
        return Subject(str(asked.model), _folder(asked.model), _tokenizer(asked.tokenizer or asked.model), None, None)
    checkpoint = stored.folder.resolve()  # `evaluate.py .` within a checkpoint
    in_run = stored.is_run and checkpoint.parent.name == "checkpoints"
    return Subject(
        name=checkpoint.name if in_run else str(asked.model),
        weights=stored.fingerprint,
        tokenizer=_tokenizer(asked.tokenizer or stored.tokenizer),
        file=checkpoint.parent.parent / FILE if in_run else None,
        stored=stored,
    )


def _folder(path: Path) -> str:
    return digest({file for pattern in _WEIGHTS for file in path.glob(pattern) if file.is_file()})


def _tokenizer(path: Path | None) -> str | None:
    """Of all files that transformers would read of it; None where it has none, which whoever reads it says."""
    if path is None:
        return None
    return digest(file for file in tokenizer_files.all_files(path) if file.is_file())
