"""Shards of text cut into pieces, the unit of work: a compressed file whole, a large plain one in ranges of lines.

Where the cuts lie depends on the sizes of the files alone, so what was done by one number of workers can be continued
by another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from megatron_distill.config.error import ConfigError

from .compressed import Damaged, PlainSource, Source, source_of

PIECE_BYTES = 32 << 20
"""A plain file is cut so, if that makes no more than MOST_PIECES of it."""
MOST_PIECES = 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Windows programs begin UTF-8 files with it; it is no text."""
BLOCK_BYTES = 1 << 20
"""Text in memory at once: enough that the work per block does not count."""


class Block(NamedTuple):
    """Neighbouring lines of a piece."""

    first_line: int
    """Number of the first one, from 1 at the beginning of the piece."""
    lines: list[bytes]
    num_bytes: int
    """Of text, decompressed."""
    position: int
    """Bytes of the file that were read so far, from the beginning of the piece."""


@dataclass(frozen=True)
class Piece:
    """The lines of a file that begin in [begin, end)."""

    path: Path
    begin: int
    end: int
    mtime_ns: int
    """When the file was last changed, in nanoseconds: another value means another text."""
    file_bytes: int

    @classmethod
    def whole(cls, path: Path) -> Piece:
        """All lines of a file."""
        status = path.stat()
        return cls(path, 0, status.st_size, status.st_mtime_ns, status.st_size)

    @property
    def num_bytes(self) -> int:
        """Bytes on the disk."""
        return self.end - self.begin

    @property
    def is_range(self) -> bool:
        """Whether the file has other pieces."""
        return self.num_bytes < self.file_bytes

    def check_unchanged(self) -> None:
        """ConfigError if the file is not the one that was cut."""
        status = self.path.stat()
        if (status.st_size, status.st_mtime_ns) != (self.file_bytes, self.mtime_ns):
            raise ConfigError(f"{self.path} was changed while it was read; run the same command again")


def cut(path: Path) -> list[Piece]:
    """The pieces of a file, in order."""
    whole = Piece.whole(path)
    if path.suffix in (".gz", ".zst", ".txt") or whole.num_bytes <= PIECE_BYTES:
        return [whole]
    size = max(PIECE_BYTES, -(-whole.num_bytes // MOST_PIECES))
    borders = [*range(0, whole.num_bytes, size), whole.num_bytes]
    return [
        Piece(path, begin, end, whole.mtime_ns, whole.file_bytes)
        for begin, end in zip(borders, borders[1:], strict=False)
    ]


def read_blocks(piece: Piece) -> Iterator[Block]:
    """Blocks of lines, in order; a line keeps its line end, but the last of a block.

    Raises:
        Damaged: a compressed file is; the lines before were handed out.
    """
    with piece.path.open("rb") as file:
        if not piece.is_range:
            yield from _blocks_of(source_of(file, piece.path.suffix), 0)
            return
        begin, end = line_start(file, piece.begin), line_start(file, piece.end)
        file.seek(begin)
        yield from _blocks_of(PlainSource(file, end), piece.begin)


def count_lines(file: BinaryIO, begin: int, end: int) -> int:
    """Line ends in [begin, end) of a file."""
    source = PlainSource(file, end)
    file.seek(begin)
    return sum(data.count(b"\n") for data in iter(source.read, b""))


def line_start(file: BinaryIO, offset: int) -> int:
    """Where the first line begins that begins at `offset` or later."""
    if offset == 0:
        return 0
    file.seek(offset - 1)
    file.readline()
    return file.tell()


def _blocks_of(source: Source, origin: int) -> Iterator[Block]:
    number, size = 1, 0
    pending: list[bytes] = []
    while True:
        try:
            data = source.read()
        except Damaged:
            # The line that the damage cut is no line; those before it are sound.
            whole = b"".join(pending)
            yield _block(number, whole[: whole.rfind(b"\n") + 1], source, origin)
            raise
        pending.append(data)
        size += len(data)
        if data and (size < BLOCK_BYTES or b"\n" not in data):
            continue
        whole = b"".join(pending)
        end = whole.rfind(b"\n") + 1 if data else len(whole)
        if end:
            if number == 1 and origin == 0 and whole.startswith(BYTE_ORDER_MARK):
                whole, end = whole[len(BYTE_ORDER_MARK) :], end - len(BYTE_ORDER_MARK)
            block = _block(number, whole[:end], source, origin)
            number += len(block.lines)
            yield block
        if not data:
            return
        pending, size = [whole[end:]], len(whole) - end


def _block(first_line: int, data: bytes, source: Source, origin: int) -> Block:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return Block(first_line, lines, len(data), source.position() - origin)
