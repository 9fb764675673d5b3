"""Compressed files of every make, whole and damaged."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable

import pytest
import zstandard

from megatron_distill.data.prepare.compressed import Damaged, Source, source_of

TEXT = b"".join(b"%d %d\n" % (i, random.Random(i).getrandbits(40)) for i in range(20_000))
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
KINDS = list(PACK)


def read(source: Source) -> bytes:
    return b"".join(iter(source.read, b""))


def test_a_plain_file_is_what_it_is() -> None:
    assert read(source_of(io.BytesIO(TEXT), ".jsonl")) == TEXT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [1, 7])
def test_files_of_any_number_of_frames_are_read_to_the_end(kind: str, parts: int) -> None:
    size = len(TEXT) // parts + 1
    packed = b"".join(PACK[kind](TEXT[i : i + size]) for i in range(0, len(TEXT), size))
    source = source_of(io.BytesIO(packed), kind)
    assert read(source) == TEXT
    assert source.position() == len(packed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_holds_nothing(kind: str) -> None:
    assert read(source_of(io.BytesIO(b""), kind)) == read(source_of(io.BytesIO(PACK[kind](b"")), kind)) == b""


def test_zeros_after_a_gzip_file_are_no_damage() -> None:
    assert read(source_of(io.BytesIO(gzip.compress(TEXT) + bytes(1000)), ".gz")) == TEXT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [1, 12, 1000, -1000, -9, -1])
def test_a_file_that_is_cut_off_gives_its_sound_part_and_then_says_so(kind: str, left: int) -> None:
    source = source_of(io.BytesIO(PACK[kind](TEXT)[:left]), kind)
    got = b""
    with pytest.raises(Damaged, match="cut off"):
        while data := source.read():
            got += data
    assert TEXT.startswith(got)
    if left == -1000:
        assert len(got) > len(TEXT) // 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [0, 3000])
def test_wrong_bytes_are_damage(kind: str, where: int) -> None:
    packed = bytearray(PACK[kind](TEXT))
    packed[where : where + 50] = bytes(range(50, 100))
    with pytest.raises(Damaged):
        read(source_of(io.BytesIO(bytes(packed)), kind))
