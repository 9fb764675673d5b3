"""A part is whole or not there, and is known by all it was made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.forms import Documents
from megatron_distill.data.prepare.parts import PartFiles, PartWriter, Record
from megatron_distill.data.prepare.pieces import Piece
from tests.support import recipes

RECIPE = recipes.recipe()
PIECE = Piece(Path("a.jsonl"), 0, 10, 5, 10)
DOCUMENTS = Documents([np.array([1, 2, 3], np.uint32)], [2, 1], [0, 1])


def test_a_part_that_was_written_is_found(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, 3)
    with PartWriter(files, np.dtype(np.uint16), Record("key")) as writer:
        writer.add(DOCUMENTS)
    record = files.read_record()
    assert record is not None and files.are_whole(record)
    assert (record.key, record.num_documents, record.num_tokens, record.num_bytes) == ("key", 2, 3, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003.bin", "000003.idx", "000003.json"]


def test_a_part_that_lost_bytes_is_not_whole(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, 0)
    with PartWriter(files, np.dtype(np.uint16), Record("key")) as writer:
        writer.add(DOCUMENTS)
    record = files.read_record()
    assert record is not None
    files.bin.write_bytes(files.bin.read_bytes()[:-1])
    assert not files.are_whole(record)
    files.bin.unlink()
    assert not files.are_whole(record)


NO_RECORDS = ["", "{}", '{"key": 1, "more": 2}', "[]", "[" * 100_000, "\xff", '{"record": {"key": 3}, "crc32": 0}']


@pytest.mark.parametrize("content", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_a_record_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    files = PartFiles(tmp_path, 0)
    assert files.read_record() is None
    files.record.write_bytes(content.encode("latin1"))
    with pytest.raises(ConfigError, match=r"000000\.json is damaged"):
        files.read_record()


def test_a_changed_bit_anywhere_is_seen(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, 0)
    with PartWriter(files, np.dtype(np.uint16), Record("key")) as writer:
        writer.add(DOCUMENTS)
    record = files.read_record()
    assert record is not None
    for path in (files.bin, files.idx, files.record):
        sound = path.read_bytes()
        for number in range(0, len(sound), 7):
            path.write_bytes(sound[:number] + bytes([sound[number] ^ 4]) + sound[number + 1 :])
            try:
                assert files.read_record() in (None, record)  # a flip in white space is harmless
                assert path == files.record or not files.are_whole(record), (path, number)
            except ConfigError:
                assert path == files.record
        path.write_bytes(sound)
    assert files.are_whole(record)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PartWriter(PartFiles(tmp_path, 0), np.dtype(np.uint16), Record("key")) as writer:
        writer.add(DOCUMENTS)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "token"), [(np.uint16, 65536), (np.int32, 2**31)])
def test_a_token_above_the_dtype_is_said(tmp_path: Path, dtype: type[np.integer], token: int) -> None:
    with PartWriter(PartFiles(tmp_path, 0), np.dtype(dtype), Record("key")) as writer:
        writer.add(Documents([np.array([token - 1], np.uint32)], [1], [0]))
        with pytest.raises(ConfigError, match=f"gave token {token}, but says that its vocabulary fits"):
            writer.add(Documents([np.array([token], np.uint32)], [1], [0]))


def test_the_key_differs_for_all_that_changes_the_tokens() -> None:
    others = [
        dataclasses.replace(RECIPE, **change).key(PIECE)
        for change in (
            {"tokenizer_checksum": "5678"},
            {"text_key": "body"},
            {"bos": 3},
            {"instructions": True},
            {"max_prompt_tokens": 5},
            {"skip_bad_lines": True},
            {"dtype": "int32"},
            {"eod": 1},
        )
    ]
    others += [
        RECIPE.key(dataclasses.replace(PIECE, **change))
        for change in ({"path": Path("b.jsonl")}, {"begin": 1}, {"end": 9}, {"mtime_ns": 6}, {"file_bytes": 11})
    ]
    assert len({RECIPE.key(PIECE), *others}) == 1 + len(others)
    assert dataclasses.replace(RECIPE, tokenizer="elsewhere/tokenizer.json").key(PIECE) == RECIPE.key(PIECE)
