"""Parts of a corpus: what was made of each piece of text, each a small corpus of its own with a record beside it.

A part exists when its record does. The record is written last, so a program that is killed leaves whole parts and files
that nobody takes for one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from megatron_distill.config.error import ConfigError

from ..index_file import HeldTables, StoredTables, write_index
from ..whole_file import partial_path
from .forms import Documents
from .pieces import Piece

FORMAT = 1
"""Another value makes parts of older versions of this program worthless."""


@dataclass(frozen=True)
class Recipe:
    """Everything besides the text that the tokens depend on, and where they go."""

    tokenizer: str
    tokenizer_fingerprint: str
    text_key: str
    append_eod: bool
    instructions: bool
    max_prompt_tokens: int
    skip_bad_lines: bool
    dtype: str
    eod: int

    def key(self, piece: Piece) -> str:
        """Differs for parts that may differ."""
        made_from = asdict(self) | {"tokenizer": "", "format": FORMAT}
        made_from |= asdict(piece) | {"path": str(piece.path.absolute())}
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


@dataclass
class Record:
    """What a part holds."""

    key: str
    num_documents: int = 0
    num_tokens: int = 0
    num_bytes: int = 0
    """Of the tokens on the disk."""
    num_text_bytes: int = 0
    engine: str = ""
    """`encode.FAST`, or why the tokenizer's own library made the ids."""
    num_compared: int = 0
    """Texts whose ids both made, and which were equal."""
    num_skipped: int = 0
    skipped: list[str] = field(default_factory=list)
    """The first places of lines that were left out, and why."""

    def to_json(self) -> dict[str, Any]:
        """For the disk or another process."""
        return asdict(self)


@dataclass(frozen=True)
class PartFiles:
    """The files of part `number` in `folder`."""

    folder: Path
    number: int

    @property
    def bin(self) -> Path:
        """Tokens."""
        return self.folder / f"{self.number:06d}.bin"

    @property
    def idx(self) -> Path:
        """Their tables."""
        return self.folder / f"{self.number:06d}.idx"

    @property
    def record(self) -> Path:
        """Says that both are whole."""
        return self.folder / f"{self.number:06d}.json"

    def read_record(self, key: str) -> Record | None:
        """The record, if there is one with this key."""
        try:
            record = Record(**json.loads(self.record.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if record.key == key else None

    def are_whole(self, record: Record) -> bool:
        """Whether tokens and tables are those that the record counted."""
        if not self.bin.exists() or not self.idx.exists():
            return False
        return (
            self.bin.stat().st_size == record.num_bytes
            and StoredTables.of(self.idx).num_documents == record.num_documents
        )


class PartWriter:
    """Writes one part; nothing of it is left if `with` ends with an error."""

    def __init__(self, files: PartFiles, dtype: np.dtype, record: Record) -> None:
        self._files, self._dtype, self.record = files, dtype, record
        self._lengths: list[int] = []
        self._marks: list[int] = []
        self._largest = int(np.iinfo(dtype).max)
        self._bin: BinaryIO

    def __enter__(self) -> PartWriter:
        self._bin = partial_path(self._files.bin).open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._bin:
                if kind is None:
                    sync(self._bin)
            if kind is None:
                self._finish()
        finally:
            for path in (self._files.bin, self._files.idx, self._files.record):
                partial_path(path).unlink(missing_ok=True)

    def add(self, documents: Documents) -> None:
        """Append documents.

        Raises:
            ConfigError: a token that the dtype does not hold.
        """
        first = len(self._lengths)
        self._marks += [first + mark for mark in documents.marks]
        self._lengths += documents.lengths
        self.record.num_documents += len(documents.marks)
        if not documents.tokens:
            return
        tokens = np.concatenate(documents.tokens)
        if tokens.size and int(tokens.max()) > self._largest:
            raise ConfigError(
                f"the tokenizer gave token {int(tokens.max())}, but says that its vocabulary fits {self._dtype}; "
                "give a tokenizer whose vocabulary names all its tokens"
            )
        self._bin.write(tokens.astype(self._dtype).data)
        self.record.num_tokens += tokens.size
        self.record.num_bytes += tokens.size * self._dtype.itemsize

    def _finish(self) -> None:
        tables = HeldTables(np.array(self._lengths, np.int32), np.array(self._marks, np.int64))
        with partial_path(self._files.idx).open("wb") as file:
            write_index(file, self._dtype, lambda: [tables])
            sync(file)
        partial_path(self._files.bin).replace(self._files.bin)
        partial_path(self._files.idx).replace(self._files.idx)
        write_json(self._files.record, self.record.to_json())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A file that is there whole or not at all."""
    with partial_path(path).open("wb") as file:
        file.write(json.dumps(content, indent=1).encode())
        sync(file)
    partial_path(path).replace(path)


def sync(file: BinaryIO) -> None:
    """Put a file's bytes on the disk before its name says that they are there."""
    file.flush()
    os.fsync(file.fileno())
