"""Megatron's `.bin/.idx` corpora, read through csrc/ and written byte for byte as Megatron-LM's builder writes them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from megatron_distill import _csrc
from megatron_distill.config.error import ConfigError
from megatron_distill.config.regular_file import check_regular

from .index_file import DTYPES, HeldTables, token_dtype, write_index
from .whole_file import open_partial, partial_path

__all__ = ["IndexedCorpus", "IndexedWriter", "token_dtype"]


class IndexedCorpus:
    """A memory-mapped corpus; opening takes constant time and checks it against its files.

    Raises:
        ConfigError: files that are missing, cut off, or not a corpus.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        for path in (Path(f"{self.prefix}.{kind}") for kind in ("idx", "bin")):
            try:
                check_regular(path)
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self.files = _csrc.IndexedCorpus(os.fsencode(self.prefix))  # a name may be bytes that are no UTF-8
        except FileNotFoundError as error:
            raise ConfigError(f"{error}; a corpus {self.prefix} is made by tools/preprocess_data.py") from error
        except UnicodeDecodeError as error:  # what is wrong is told with the name
            raise ConfigError(
                f"no corpus {self.prefix!a} can be opened; it is made by tools/preprocess_data.py"
            ) from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.num_tokens: int = self.files.num_tokens
        self.num_documents: int = self.files.num_documents
        self.num_sequences: int = self.files.num_sequences
        self.dtype = np.dtype(DTYPES[self.files.dtype_code])

    def max_token(self) -> int:
        """The largest token; reads the whole corpus."""
        return int(self.files.max_token())

    def document_start(self, document: int) -> int:
        """Position of a document's first token in the stream; of document `num_documents`, the end.

        Raises:
            ConfigError: the index says that it lies outside the corpus.
        """
        with _told():
            return int(self.files.document_start(document))

    def sequence_start(self, sequence: int) -> int:
        """The same for a sequence; a document is one or more."""
        with _told():
            return int(self.files.sequence_start(sequence))

    def tokens_of_sequences(self, first: int, end: int) -> int:
        """Tokens of the sequences [first, end) together; reads their lengths.

        Raises:
            ConfigError: the index gives one a negative length.
        """
        with _told():
            return int(self.files.tokens_of_sequences(first, end))

    def document_tokens(self, document: int) -> NDArray[np.int64]:
        """Tokens of one document."""
        start, end = self.document_start(document), self.document_start(document + 1)
        return self.windows([start], end - start)[0]

    def windows(self, starts: list[int] | NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Tokens [start, start + length) for each start, [len(starts), length]; IndexError outside the corpus."""
        return self.files.windows(np.asarray(starts, dtype=np.int64), length)


@contextmanager
def _told() -> Iterator[None]:
    """What csrc/ finds wrong with a corpus (ValueError), as a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


class IndexedWriter:
    """Writes a corpus under temporary names; both files get their own only when `with` ends without an error.

    Raises:
        ConfigError: files cannot be written there.
    """

    def __init__(self, prefix: str | Path, dtype: np.dtype) -> None:
        self.prefix, self.dtype = str(prefix), np.dtype(dtype)
        self.lengths, self.num_tokens = array("i"), 0
        self._paths = [Path(f"{self.prefix}.{kind}") for kind in ("bin", "idx")]
        self._bin = open_partial(self._paths[0])

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._bin.close()  # writes what is still in memory, so a full disk may be noticed here
            if kind is None:
                self._write_index()
                for path in self._paths:
                    partial_path(path).replace(path)
        finally:
            for path in self._paths:
                partial_path(path).unlink(missing_ok=True)

    def add_document(self, tokens: list[int] | NDArray[np.integer]) -> None:
        """Append one document of one sequence. OverflowError if a token does not fit the dtype."""
        values = np.asarray(tokens, dtype=np.int64)
        limits = np.iinfo(self.dtype)
        outside = values[(values < limits.min) | (values > limits.max)]
        if outside.size:
            raise OverflowError(f"token {int(outside[0])} does not fit {self.dtype}")
        self._bin.write(values.astype(self.dtype).tobytes())
        self.lengths.append(values.size)
        self.num_tokens += values.size

    def _write_index(self) -> None:
        lengths = np.array(self.lengths, dtype=np.int32)
        tables = HeldTables(lengths, np.arange(lengths.size, dtype=np.int64))
        with open_partial(self._paths[1]) as file:
            write_index(file, self.dtype, lambda: [tables])
