"""The tables of a Megatron `.idx`, read and written a part at a time, so that no index is too large for the memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from megatron_distill.config.error import ConfigError

MAGIC = b"MMIDIDX\x00\x00"
HEADER_BYTES = 34
DTYPES: dict[int, type[np.integer]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
"""Megatron's codes for the dtype of tokens."""


def token_dtype(vocab_size: int) -> np.dtype:
    """The dtype Megatron-LM gives tokens of a vocabulary: two bytes as long as they fit with some to spare."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


class Tables(Protocol):
    """Neighbouring documents of a corpus."""

    @property
    def num_sequences(self) -> int:
        """Sequences."""

    @property
    def num_documents(self) -> int:
        """Documents; one without tokens has no sequence."""

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence."""

    def marks(self) -> NDArray[np.int64]:
        """Number of each document's first sequence, counted from the first one here."""


@dataclass(frozen=True)
class HeldTables:
    """Tables in memory."""

    held_lengths: NDArray[np.int32]
    held_marks: NDArray[np.int64]

    @property
    def num_sequences(self) -> int:
        """Sequences."""
        return self.held_lengths.size

    @property
    def num_documents(self) -> int:
        """Documents; one without tokens has no sequence."""
        return self.held_marks.size

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence."""
        return self.held_lengths

    def marks(self) -> NDArray[np.int64]:
        """Number of each document's first sequence."""
        return self.held_marks


@dataclass(frozen=True)
class StoredTables:
    """Tables of an `.idx` in a file; each call reads them anew."""

    path: Path
    dtype_code: int
    num_sequences: int
    num_documents: int

    @classmethod
    def of(cls, path: Path) -> StoredTables:
        """Reads the header. ConfigError if it is no `.idx`, or has not the size that its header says."""
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise ConfigError(f"{path} does not begin as an index does; make it again with tools/preprocess_data.py")
        version, code, sequences, marks = struct.unpack("<QBQQ", header[len(MAGIC) :])
        needed = HEADER_BYTES + 12 * sequences + 8 * marks
        if version != 1 or code not in DTYPES or marks < 1 or size not in (needed, needed + sequences):
            raise ConfigError(
                f"{path} is damaged: its header says version {version}, dtype {code}, {sequences:,} sequences and "
                f"{marks:,} document marks, and it has {size:,} bytes; make it again with tools/preprocess_data.py"
            )
        return cls(path, code, sequences, marks - 1)

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence."""
        return np.fromfile(self.path, np.int32, self.num_sequences, offset=HEADER_BYTES)

    def marks(self) -> NDArray[np.int64]:
        """Number of each document's first sequence."""
        return np.fromfile(self.path, np.int64, self.num_documents, offset=HEADER_BYTES + 12 * self.num_sequences)


def write_index(file: BinaryIO, dtype: np.dtype, parts: Callable[[], Iterable[Tables]]) -> None:
    """Write the `.idx` of all documents that `parts()` gives, which is called four times."""
    sequences = documents = 0
    for part in parts():
        sequences, documents = sequences + part.num_sequences, documents + part.num_documents
    code = next(code for code, known in DTYPES.items() if np.dtype(known) == dtype)
    file.write(MAGIC + struct.pack("<QBQQ", 1, code, sequences, documents + 1))
    for part in parts():
        _put(file, part.lengths())
    begin = 0
    for part in parts():
        ends = begin + np.cumsum(part.lengths(), dtype=np.int64) * dtype.itemsize
        if ends.size:
            _put(file, np.concatenate((np.array([begin], np.int64), ends[:-1])))
            begin = int(ends[-1])
    first = 0
    for part in parts():
        _put(file, part.marks() + first)
        first += part.num_sequences
    _put(file, np.array([first], np.int64))


def _put(file: BinaryIO, values: NDArray[np.integer]) -> None:
    file.write(np.ascontiguousarray(values).data)
