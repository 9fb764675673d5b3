"""Parts joined to a corpus, so that it can be stopped after any instruction and goes on where it was.

The first part's tokens become the corpus by another name, the others are appended inside the kernel and leave the disk
as soon as they are there: at no time is more than one part on it twice.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..index_file import DTYPES, StoredTables, write_index
from ..whole_file import partial_path
from .parts import PartFiles, Record, sync, write_json

NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}
"""What the kernel says when a file system does not copy by itself."""


@dataclass(frozen=True)
class Merge:
    """Joins the parts in `folder` to `prefix`."""

    folder: Path
    prefix: str

    @property
    def bin(self) -> Path:
        """The tokens of all parts, as long as they are joined."""
        return self.folder / "merged.bin"

    @property
    def idx(self) -> Path:
        """The tables of all parts."""
        return self.folder / "merged.idx"

    @property
    def _seal(self) -> Path:
        """Says that both are whole."""
        return self.folder / "merged.json"

    @property
    def has_begun(self) -> bool:
        """Whether parts have been taken apart; then all of them were whole."""
        return self.bin.exists()

    def run(self, parts: Sequence[PartFiles], records: Sequence[Record]) -> None:
        """Join whole parts, or go on with it."""
        if not self.has_begun:
            parts[0].bin.replace(self.bin)
        with self.bin.open("r+b") as whole:
            begin = records[0].num_bytes
            for part, record in zip(parts[1:], records[1:], strict=True):
                if part.bin.exists():
                    append(whole, part.bin, begin)
                    part.bin.unlink()
                begin += record.num_bytes
        self._write_index(parts)

    def seal(self, content: dict[str, Any]) -> None:
        """Say that the corpus is whole; `content` is kept until it has its name."""
        write_json(self._seal, content)

    def publish(self) -> dict[str, Any] | None:
        """Give a sealed corpus its name and take its parts away; returns what it was sealed with, None without one."""
        if not self._seal.exists():
            return None
        content: dict[str, Any] = json.loads(self._seal.read_bytes())
        for whole, kind in ((self.bin, "bin"), (self.idx, "idx")):
            if whole.exists():
                whole.replace(f"{self.prefix}.{kind}")
        remove(path for path in self.folder.iterdir() if path not in (self._seal, self.folder / "lock"))
        self._seal.unlink()
        return content

    def _write_index(self, parts: Sequence[PartFiles]) -> None:
        if len(parts) == 1 and parts[0].idx.exists():
            parts[0].idx.replace(self.idx)
        elif not self.idx.exists():
            tables = [StoredTables.of(part.idx) for part in parts]
            with partial_path(self.idx).open("wb") as file:
                write_index(file, np.dtype(DTYPES[tables[0].dtype_code]), lambda: tables)
                sync(file)
            partial_path(self.idx).replace(self.idx)


def append(whole: BinaryIO, path: Path, begin: int) -> None:
    """Make what follows `begin` in `whole` the content of `path`, on the disk, whatever was there."""
    whole.truncate(begin)
    with path.open("rb") as file:
        _copy(file, whole, begin, path.stat().st_size)
    sync(whole)


def _copy(file: BinaryIO, whole: BinaryIO, begin: int, size: int) -> None:
    done = 0
    try:
        while done < size and hasattr(os, "copy_file_range"):
            # File systems that share blocks copy nothing here.
            done += os.copy_file_range(file.fileno(), whole.fileno(), size - done, done, begin + done)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
    if done < size:
        file.seek(done)
        whole.seek(begin + done)
        shutil.copyfileobj(file, whole, 1 << 20)


def remove(paths: Iterable[Path]) -> None:
    """Delete files."""
    for path in list(paths):
        path.unlink(missing_ok=True)
