"""Parts joined to a corpus, so that it can be stopped after any instruction and goes on where it was.

The first part's tokens become the corpus by another name, the others are appended inside the kernel and leave the disk
as soon as they are there: at no time is more than one part on it twice.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

from ..corpus_record import CorpusRecord, write_corpus_record
from ..index_file import DTYPES, StoredTables, write_index
from ..whole_file import partial_path
from .outcome import Outcome
from .parts import PartFiles, Record, matches, sync, write_json
from .parts_folder import own_files, remove

NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}
"""What the kernel says when a file system does not copy by itself."""


UNWRITTEN_BYTES = 64 << 20
"""Appended parts are put on the disk together until they have this size, and only then removed."""


@dataclass(frozen=True)
class Seal:
    """Says that the joined files are whole, and what they are."""

    key: str
    """Of the request that made them."""
    outcome: Outcome
    record: CorpusRecord
    bin_bytes: int
    idx_bytes: int


@dataclass(frozen=True)
class Merge:
    """Joins the parts in `folder` to `prefix`."""

    folder: Path
    prefix: str
    say: Callable[[str], None] = print
    """Takes what the user should know."""

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

    @property
    def is_sealed(self) -> bool:
        """Whether a run was killed after it had joined everything."""
        return self._seal.exists()

    def can_go_on(self, parts: Sequence[PartFiles], records: Sequence[Record]) -> bool:
        """Whether all that is joined already, and all that is not, are the bytes of these records; reads them."""
        begin = 0
        for number, (part, record) in enumerate(zip(parts, records, strict=True)):
            is_joined = number == 0 or not part.bin.exists()
            joined = is_joined and matches(self.bin, begin, record.num_bytes, record.bin_crc32)
            if not (joined or (number > 0 and part.has_tokens(record))) or not part.has_tables(record):
                return False
            begin += record.num_bytes
        return True

    def run(self, parts: Sequence[PartFiles], records: Sequence[Record]) -> None:
        """Join whole parts, or go on with it."""
        if not self.has_begun:
            parts[0].bin.replace(self.bin)
        joined: list[PartFiles] = []
        with self.bin.open("r+b") as whole:
            begin = records[0].num_bytes
            unwritten = 0
            for part, record in zip(parts[1:], records[1:], strict=True):
                if part.bin.exists():
                    append(whole, part.bin, begin)
                    joined.append(part)
                    unwritten += record.num_bytes
                begin += record.num_bytes
                if unwritten >= UNWRITTEN_BYTES:
                    _remove_tokens(whole, joined)
                    unwritten = 0
            _remove_tokens(whole, joined)
        tables = [StoredTables.of(part.idx) for part in parts]
        with partial_path(self.idx).open("wb") as file:
            write_index(file, np.dtype(DTYPES[tables[0].dtype_code]), lambda: tables)
            sync(file)
        partial_path(self.idx).replace(self.idx)

    def seal(self, key: str, outcome: Outcome, record: CorpusRecord) -> None:
        """Say that the corpus is whole, and what it is."""
        sizes = self.bin.stat().st_size, self.idx.stat().st_size
        write_json(self._seal, asdict(Seal(key, outcome, record, *sizes)), on_disk=True)

    def publish(self) -> Seal | None:
        """Give a sealed corpus its name and take its parts away; None without a seal, or with one that is damaged."""
        seal = self._read_seal()
        if seal is None:
            return None
        if self.bin.exists():
            # Without an index nobody takes the new tokens for those of the old corpus, whenever this is killed.
            Path(f"{self.prefix}.idx").unlink(missing_ok=True)
            self.bin.replace(f"{self.prefix}.bin")
        if self.idx.exists():
            write_corpus_record(self.prefix, seal.record)
            self.idx.replace(f"{self.prefix}.idx")
        remove(path for path in own_files(self.folder) if path != self._seal)
        self._seal.unlink()
        return seal

    def start_anew(self) -> None:
        """Forget what was joined."""
        remove((self._seal, self.bin, self.idx))

    def _read_seal(self) -> Seal | None:
        """The seal, if what it sealed is there with its size, under this name or already under the corpus's own."""
        try:
            seal = read_json(self._seal, Seal)
        except FileNotFoundError:
            return None
        except ConfigError as error:
            self.say(f"{error}; the corpus is joined again")
            self._seal.unlink()
            return None
        for path, kind, size in ((self.bin, "bin", seal.bin_bytes), (self.idx, "idx", seal.idx_bytes)):
            named = path if path.exists() else Path(f"{self.prefix}.{kind}")
            if not named.exists() or named.stat().st_size != size:
                self.say(f"{named} has not the size that it was written with; the corpus is joined again")
                self._seal.unlink()
                return None
        return seal


def _remove_tokens(whole: BinaryIO, joined: list[PartFiles]) -> None:
    """Remove the tokens of parts, once their copies are on the disk."""
    sync(whole)
    remove(part.bin for part in joined)
    joined.clear()


def append(whole: BinaryIO, path: Path, begin: int) -> None:
    """Make what follows `begin` in `whole` the content of `path`, whatever was there."""
    whole.truncate(begin)
    with path.open("rb") as file:
        _copy(file, whole, begin, path.stat().st_size)


def _copy(file: BinaryIO, whole: BinaryIO, begin: int, size: int) -> None:
    done = 0
    try:
        while done < size and hasattr(os, "copy_file_range"):
            # File systems that share blocks copy nothing here.
            copied = os.copy_file_range(file.fileno(), whole.fileno(), size - done, done, begin + done)
            if not copied:  # some network and virtual file systems say neither that they can nor that they cannot
                break
            done += copied
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
    if done < size:
        file.seek(done)
        whole.seek(begin + done)
        shutil.copyfileobj(file, whole, 1 << 20)
