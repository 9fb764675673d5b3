"""Every line is in one block of one piece, wherever the cuts fall."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare import compressed, pieces
from megatron_distill.data.prepare.pieces import Piece, count_lines, cut, line_start, read_blocks


def numbered_lines(path: Path) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for piece in cut(path):
        with path.open("rb") as file:
            first = 1 + count_lines(file, 0, line_start(file, piece.begin))
        for block in read_blocks(piece):
            found += enumerate(block.lines, first + block.first_line - 1)
    return found


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=30),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    ends=st.booleans(),
)
def test_pieces_and_blocks_of_any_size_hold_the_lines_of_the_file(
    lines: list[bytes], sizes: tuple[int, int, int], ends: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("pieces") / "a.jsonl"
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    path.write_bytes(data)
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", sizes[0])
        patch.setattr(pieces, "BLOCK_BYTES", sizes[1])
        patch.setattr(compressed, "CHUNK", sizes[2])
        assert numbered_lines(path) == list(enumerate(expected, 1))


def test_large_plain_files_are_cut_and_compressed_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    monkeypatch.setattr(pieces, "MOST_PIECES", 4)
    for name, data in (("a.jsonl", b"x" * 250), ("b.jsonl", b"x" * 1000), ("c.txt", b"x" * 250)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(bytes(range(256)) * 2))
    counts = {path.name: len(cut(path)) for path in sorted(tmp_path.iterdir())}
    assert counts == {"a.jsonl": 3, "b.jsonl": 4, "c.txt": 1, "d.json.gz": 1}
    assert sum(piece.num_bytes for piece in cut(tmp_path / "a.jsonl")) == 250


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    piece = Piece.whole(path)
    piece.check_unchanged()
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl was changed while it was read"):
        piece.check_unchanged()
