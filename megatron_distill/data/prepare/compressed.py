"""Bytes of files as they were before gzip or Zstandard."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

CHUNK = 1 << 20
"""Bytes asked for at once."""


class Damaged(ValueError):
    """A compressed file that is cut off or has wrong bytes; all that came before them was handed out."""


class Source(Protocol):
    """A file that is read forwards."""

    def read(self) -> bytes:
        """The next bytes, a few times CHUNK at most as a rule; none at the end. Damaged if the file is."""

    def position(self) -> int:
        """Bytes taken from the disk so far."""


def source_of(file: BinaryIO, suffix: str) -> Source:
    """What is in an open file, decompressed if the suffix of its name is .gz or .zst."""
    if suffix == ".gz":
        from isal import igzip_lib  # three times as fast as zlib

        def gzip_member() -> Frame:
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

        failure = cast(type[Exception], igzip_lib.error)  # its stub says it were an instance
        return CompressedSource(file, gzip_member, failure, "gzip")
    if suffix == ".zst":
        import zstandard

        return CompressedSource(file, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError, "Zstandard")
    return PlainSource(file)


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


class Frame(Protocol):
    """The decompressor of a gzip member or a Zstandard frame."""

    @property
    def eof(self) -> bool:
        """Whether its end was met."""

    @property
    def unused_data(self) -> bytes:
        """What was given after its end."""

    def decompress(self, data: bytes) -> bytes:
        """What `data` holds; all of it, so that damage further on takes nothing sound with it."""


class CompressedSource:
    """A file of any number of frames, one after the other, as pigz, bgzip and zstd write them."""

    def __init__(self, file: BinaryIO, new_frame: Callable[[], Frame], error: type[Exception], name: str) -> None:
        self._file, self._new_frame, self._error, self._name = file, new_frame, error, name
        self._frame: Frame | None = None
        self._rest = b""

    def read(self) -> bytes:
        """The next bytes. Damaged if a frame has no end: libraries like to take that for the end of the file."""
        while packed := self._rest or self._file.read(CHUNK // 4):
            if self._frame is None:
                packed = packed.lstrip(b"\0")  # tapes pad gzip files with zeros; no frame begins with one
                self._frame = self._new_frame() if packed else None
            self._rest = b""
            if self._frame and (data := self._decompress(self._frame, packed)):
                return data
        if self._frame is not None:
            raise Damaged(f"the {self._name} file is damaged or cut off (it ends before its end marker)")
        return b""

    def _decompress(self, frame: Frame, packed: bytes) -> bytes:
        try:
            data = frame.decompress(packed)
        except self._error as error:
            raise Damaged(f"the {self._name} file is damaged ({error})") from error
        if frame.eof:
            self._rest, self._frame = frame.unused_data, None
        return data

    def position(self) -> int:
        """Bytes taken from the disk so far."""
        return self._file.tell()
