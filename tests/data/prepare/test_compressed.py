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
def test_a_file_of_no_text_holds_nothing(kind: str) -> None:
    assert read(source_of(io.BytesIO(PACK[kind](b"")), kind)) == b""
    assert read(source_of(io.BytesIO(b""), ".jsonl")) == b""


# Preallocated and never downloaded; downloaded in pieces of which one is missing.
HOLES = {
    "no bytes": lambda packed: b"",
    "zeros": lambda packed: bytes(1 << 20),
    "zeros in front": lambda packed: bytes(1 << 20) + packed,
    "a hole": lambda packed: packed + bytes(300_000) + packed,
    "a small hole": lambda packed: packed + bytes(1) + packed,
    "a hole in a frame": lambda packed: packed[: len(packed) // 2] + bytes(5000) + packed[len(packed) // 2 + 5000 :],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hole", HOLES)
def test_files_that_were_never_written_whole_are_damaged(kind: str, hole: str) -> None:
    source = source_of(io.BytesIO(HOLES[hole](PACK[kind](TEXT))), kind)
    with pytest.raises(Damaged, match="is damaged"):
        read(source)


def test_zeros_after_a_zstandard_file_are_damage() -> None:
    with pytest.raises(Damaged):
        read(source_of(io.BytesIO(PACK[".zst"](TEXT) + bytes(1000)), ".zst"))


@pytest.mark.parametrize("log", [27, 28, 31])
def test_any_window_of_zstandard_is_read(log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: the window counts
    packed = packer.compress(TEXT) + packer.flush()
    assert read(source_of(io.BytesIO(packed), ".zst")) == TEXT


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
