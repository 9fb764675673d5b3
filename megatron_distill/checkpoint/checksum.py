"""CRC-32 of files: finds every flipped byte, and costs less than a tenth of what reading the file from memory does.

ISA-L computes 14 GB/s of it on one core of the CPU it was measured on, where BLAKE2b and SHA-256 come to about 1. It
guards against disks and networks, not against people.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from isal import isal_zlib

from megatron_distill.config.regular_file import check_regular

_BLOCK = 1 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def checksum(path: Path) -> str:
    """The CRC-32 of a file as eight hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    check_regular(path)
    value, block = 0, bytearray(_BLOCK)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            value = isal_zlib.crc32(view[:count], value)
    return f"{value:08x}"


def text_checksum(text: str) -> str:
    """The same of a text in UTF-8."""
    return f"{isal_zlib.crc32(text.encode()):08x}"


def sample_checksum(path: Path) -> str:
    """Size and CRC-32 of a file: of all of it, or of a sample spread over it if it is large."""
    size = path.stat().st_size
    whole = size <= _SAMPLES * _SAMPLE_BYTES
    value = 0
    with path.open("rb") as file:
        for i in range(1 if whole else _SAMPLES):
            file.seek(0 if whole else i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            value = isal_zlib.crc32(file.read(size if whole else _SAMPLE_BYTES), value)
    return f"{size} bytes ({'checksum' if whole else 'sampled checksum'} {value:08x})"


class ChecksummedFile:
    """A new file whose CRC-32 is known when it is closed, so that nothing is read again. Flushed to disk at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._value = 0
        self.size = 0
        """Bytes that have been written."""

    @property
    def checksum(self) -> str:
        """Of what has been written."""
        return f"{self._value:08x}"

    def __enter__(self) -> ChecksummedFile:
        return self

    def __exit__(self, kind: Any, *exc: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, data: Any) -> int:
        """Append bytes."""
        self._value = isal_zlib.crc32(data, self._value)
        count = self._file.write(data)
        self.size += count
        return count

    def flush(self) -> None:
        """What torch.save asks for; the end of the file is when it matters."""

    def tell(self) -> int:
        """Bytes so far."""
        return self._file.tell()
