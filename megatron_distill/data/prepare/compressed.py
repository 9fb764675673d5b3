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
        return CompressedSource(file, gzip_member, failure, "gzip", padding=b"\0")
    if suffix == ".zst":
        import zstandard

        # The largest window of the format, as `zstd --long=31` asks for; a frame takes the memory that it needs.
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return CompressedSource(file, decompressor.decompressobj, zstandard.ZstdError, "Zstandard")
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
    """A file of one or more frames, one after the other, as pigz, bgzip and zstd write them.

    `padding` may follow the last frame, as tapes fill up gzip files with zeros.
    """

    def __init__(
        self, file: BinaryIO, new_frame: Callable[[], Frame], error: type[Exception], name: str, padding: bytes = b""
    ) -> None:
        self._file, self._new_frame, self._error, self._name = file, new_frame, error, name
        self._padding, self._is_padded = padding, False
        self._frame: Frame | None = None
        self._num_frames = 0
        self._rest = b""

    def read(self) -> bytes:
        """The next bytes. Damaged if a frame has no end: libraries like to take that for the end of the file."""
        while packed := self._rest or self._file.read(CHUNK // 4):
            self._rest = b""
            if self._frame is None and not (packed := self._begin(packed)):
                continue
            assert self._frame is not None
            if data := self._decompress(self._frame, packed):
                return data
        if self._frame is not None:
            raise Damaged(f"the {self._name} file is damaged or cut off (it ends before its end marker)")
        if not self._num_frames:
            raise Damaged(f"the {self._name} file is damaged or cut off (it is empty; even no text has a header)")
        return b""

    def _begin(self, packed: bytes) -> bytes:
        """Begin a frame, if anything but padding is left; returns what it begins with."""
        rest = packed.lstrip(self._padding) if self._padding and self._num_frames else packed
        self._is_padded |= len(rest) < len(packed)
        if rest and self._is_padded:
            raise Damaged(f"the {self._name} file is damaged (it has a hole of zeros, with more data behind it)")
        if rest:
            self._frame = self._new_frame()
            self._num_frames += 1
        return rest

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
