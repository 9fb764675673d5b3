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
    record = files.read_record("key")
    assert record is not None and files.are_whole(record)
    assert (record.num_documents, record.num_tokens, record.num_bytes) == (2, 3, 6)
    assert files.read_record("another key") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003.bin", "000003.idx", "000003.json"]


def test_a_part_that_lost_bytes_is_not_whole(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, 0)
    with PartWriter(files, np.dtype(np.uint16), Record("key")) as writer:
        writer.add(DOCUMENTS)
    record = files.read_record("key")
    assert record is not None
    files.bin.write_bytes(files.bin.read_bytes()[:-1])
    assert not files.are_whole(record)
    files.bin.unlink()
    assert not files.are_whole(record)


@pytest.mark.parametrize("content", ["", "{}", '{"key": 1, "more": 2}', "[]"])
def test_a_record_that_is_no_record_is_as_if_not_there(tmp_path: Path, content: str) -> None:
    files = PartFiles(tmp_path, 0)
    files.record.write_text(content)
    assert files.read_record("key") is None


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
            {"tokenizer_fingerprint": "5678"},
            {"text_key": "body"},
            {"append_eod": False},
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
