"""Bytes of files as they were before gzip or Zstandard."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO, Protocol

CHUNK = 1 << 20
"""Bytes asked for at once."""


class Damaged(ValueError):
    """A compressed file that is cut off or has wrong bytes; all that came before them was handed out."""


class Source(Protocol):
    """A file that is read forwards."""

    def read(self) -> bytes:
        """The next bytes, at most about CHUNK; none at the end. Damaged if the file is."""

    def position(self) -> int:
        """Bytes taken from the disk so far."""


def source_of(file: BinaryIO, suffix: str) -> Source:
    """What is in an open file, decompressed if the suffix of its name is .gz or .zst."""
    if suffix == ".gz":
        return GzipSource(file)
    return ZstandardSource(file) if suffix == ".zst" else PlainSource(file)


class PlainSource:
    """A file as it is, up to `end` if given."""

    def __init__(self, file: BinaryIO, end: int | None = None) -> None:
        self._file, self._end = file, end

    def read(self) -> bytes:
        """The next bytes."""
        left = CHUNK if self._end is None else min(CHUNK, self._end - self._file.tell())
        return self._file.read(max(left, 0))

    def position(self) -> int:
        """Bytes taken from the disk so far."""
        return self._file.tell()


class GzipSource:
    """A gzip file of any number of members, by ISA-L: three times as fast as zlib."""

    def __init__(self, file: BinaryIO) -> None:
        from isal import igzip, isal_zlib

        self._file = file
        self._inflated = igzip.IGzipFile(fileobj=file, mode="rb")
        self._errors = (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error)

    def read(self) -> bytes:
        """The next bytes. Damaged if there are none, but should be."""
        try:
            return self._inflated.read1(CHUNK)  # one step at a time: an error takes nothing sound with it
        except self._errors as error:
            raise Damaged(f"the gzip file is damaged or cut off ({error})") from error

    def position(self) -> int:
        """Bytes taken from the disk so far."""
        return self._file.tell()


class ZstandardSource:
    """A Zstandard file of any number of frames."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file = file
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._begun, self._error = False, zstandard.ZstdError
        self._rest = b""

    def read(self) -> bytes:
        """The next bytes. Damaged if a frame is not whole: the library itself takes that for the end."""
        while True:
            packed = self._rest or self._file.read(CHUNK // 4)
            if not packed:
                if self._begun:
                    raise Damaged("the Zstandard file is cut off (its last frame has no end)")
                return b""
            try:
                data = self._frame.decompress(packed)
            except self._error as error:
                raise Damaged(f"the Zstandard file is damaged ({error})") from error
            self._rest, self._begun = b"", True
            if self._frame.eof:
                self._rest, self._frame, self._begun = self._frame.unused_data, self._new(), False
            if data:
                return data

    def position(self) -> int:
        """Bytes taken from the disk so far."""
        return self._file.tell()
