"""What an evaluation is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model, tasks, and what decides their scores; `tools/evaluate.py --help` says what each is."""

    model: Path
    tasks: tuple[str, ...]
    data: Path | None = None
    limit: int | None = None
    text: Path | None = None
    corpus: Path | None = None
    seq_length: int | None = None
    max_tokens: int | None = None
    instructions: Path | None = None
    seeds: tuple[int, ...] = (10, 20, 30, 40, 50)
    tokenizer: Path | None = None
    tensor: int = 1
    pipeline: int = 1
    precision: str = "auto"
    batch_tokens: int = 4096
    backend: str = "ours"

    @property
    def settings(self) -> dict[str, Any]:
        """What is kept beside a score: scores of other settings are other scores."""
        named = ("limit", "seq_length", "max_tokens", "precision", "backend")
        paths = ("data", "text", "corpus", "instructions", "tokenizer")
        return {name: getattr(self, name) for name in named} | {
            name: str(value) for name in paths if (value := getattr(self, name)) is not None
        }
