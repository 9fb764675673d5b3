"""What an evaluation is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .items import items_of


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

    def settings_of(self, task: str, tokenizer: str | None = None) -> dict[str, Any]:
        """What is kept beside a task's scores: those of other settings, or of files with other contents, are others.

        `tokenizer` is the SHA-256 of the one in use. Settings that do not concern the task are not among them.
        """
        found: dict[str, Any] = {"precision": self.precision, "backend": self.backend, "seq_length": self.seq_length}
        given = {"path": str(self.tokenizer)} if self.tokenizer else {}
        found["tokenizer"] = {"sha256": tokenizer} | given
        if task == "perplexity":
            found["max_tokens"] = self.max_tokens
            if self.text is not None:
                found["text"] = _content(self.text, self.text)
            if self.corpus is not None:
                found["corpus"] = _content(self.corpus, *(Path(f"{self.corpus}.{kind}") for kind in ("bin", "idx")))
            return found
        found["limit"] = self.limit
        if task == "rouge":
            found["seeds"] = list(self.seeds)
            if self.instructions is not None:
                found["instructions"] = _content(self.instructions, self.instructions)
        elif self.data is not None:
            found["data"] = _content(self.data, *items_of(self.data, task))
        return found


def _content(path: Path, *files: Path) -> dict[str, Any]:
    """Where files are, and what is in them; nothing of it if one is missing or unreadable, as its reader says."""
    try:
        whole = digest(files) if files and all(file.is_file() for file in files) else None
    except OSError:
        whole = None
    return {"path": str(path), "sha256": whole}


def digest(files: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, in the order of their endings and names."""
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda path: (path.suffix, path.name)):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
