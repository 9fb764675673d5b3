"""Parts of a corpus: what was made of each piece of text, each a small corpus of its own with a record beside it.

A part exists when its record does and the checksums in it are those of its files. So nothing is flushed to the disk
before it is renamed: a part that a power failure cut is seen, and made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

from ..index_file import HeldTables, write_index
from ..whole_file import partial_path
from .forms import Documents
from .pieces import Piece
from .places import Place

FORMAT = 2
"""Another value makes parts of older versions of this program worthless."""


@dataclass(frozen=True)
class Recipe:
    """Everything besides the text that the tokens depend on, and where they go."""

    tokenizer: str
    tokenizer_checksum: str
    text_key: str
    instructions: bool
    max_prompt_tokens: int
    skip_bad_lines: bool
    dtype: str
    bos: int
    """Token before each document, frame.NONE for none; `eod` the same after it."""
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
    bin_crc32: int = 0
    """Of the tokens; `idx_crc32` of their tables."""
    idx_bytes: int = 0
    idx_crc32: int = 0
    num_text_bytes: int = 0
    engine: str = ""
    """`encode.FAST`, or why the tokenizer's own library made the ids."""
    num_compared: int = 0
    """Texts whose ids both made, and which were equal."""
    num_skipped: int = 0
    skipped: list[Place] = field(default_factory=list)
    """The first places of lines that were left out, and why."""

    def to_json(self) -> dict[str, Any]:
        """For the disk or another process."""
        return asdict(self)

    @property
    def crc32(self) -> int:
        """Of the record itself."""
        return isal_zlib.crc32(json.dumps(self.to_json(), sort_keys=True).encode())


@dataclass(frozen=True)
class StoredRecord:
    """A record in its file."""

    record: Record
    crc32: int


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

    def read_record(self) -> Record | None:
        """The record, None if there is none.

        Raises:
            ConfigError: it is damaged.
        """
        try:
            stored = read_json(self.record, StoredRecord)
        except FileNotFoundError:
            return None
        if stored.record.crc32 != stored.crc32:
            raise ConfigError(f"{self.record} is damaged: its checksum is another")
        return stored.record

    def write_record(self, record: Record) -> None:
        """Write the record, whole or not at all."""
        write_json(self.record, {"record": record.to_json(), "crc32": record.crc32})

    def are_whole(self, record: Record) -> bool:
        """Whether both files are those of the record; reads them."""
        return self.has_tokens(record) and self.has_tables(record)

    def has_tables(self, record: Record) -> bool:
        """Whether the tables are those of the record; reads them."""
        return matches(self.idx, 0, record.idx_bytes, record.idx_crc32, whole=True)

    def has_tokens(self, record: Record) -> bool:
        """Whether the tokens are those of the record; reads them."""
        return matches(self.bin, 0, record.num_bytes, record.bin_crc32, whole=True)


def matches(path: Path, begin: int, size: int, crc32: int, *, whole: bool = False) -> bool:
    """Whether `size` bytes of a file from `begin` on have a CRC-32; with `whole`, the file must end there."""
    try:
        with path.open("rb") as file:
            if whole and os.fstat(file.fileno()).st_size != begin + size:
                return False
            file.seek(begin)
            found, left = 0, size
            while left and (data := file.read(min(left, 1 << 20))):
                found, left = isal_zlib.crc32(data, found), left - len(data)
    except FileNotFoundError:
        return False
    return left == 0 and found == crc32


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
            self._bin.close()  # writes what is still in memory, so a full disk may be noticed here
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
        data = tokens.astype(self._dtype).data
        self._bin.write(data)
        self.record.bin_crc32 = isal_zlib.crc32(data, self.record.bin_crc32)
        self.record.num_tokens += tokens.size
        self.record.num_bytes += data.nbytes

    def _finish(self) -> None:
        tables = HeldTables(np.array(self._lengths, np.int32), np.array(self._marks, np.int64))
        data = io.BytesIO()
        write_index(data, self._dtype, lambda: [tables])
        partial_path(self._files.idx).write_bytes(data.getbuffer())
        self.record.idx_bytes = data.tell()
        self.record.idx_crc32 = isal_zlib.crc32(data.getbuffer())
        partial_path(self._files.bin).replace(self._files.bin)
        partial_path(self._files.idx).replace(self._files.idx)
        self._files.write_record(self.record)


def write_json(path: Path, content: dict[str, Any], *, on_disk: bool = False) -> None:
    """A file that is there whole or not at all; `on_disk`, even after a power failure."""
    with partial_path(path).open("wb") as file:
        file.write(json.dumps(content, indent=1).encode())
        if on_disk:
            sync(file)
    partial_path(path).replace(path)


def sync(file: BinaryIO) -> None:
    """Put a file's bytes on the disk before its name says that they are there."""
    file.flush()
    os.fsync(file.fileno())
