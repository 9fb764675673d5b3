"""Tables against megatron-core's own builder, for documents of any number of sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from megatron_distill.config.error import ConfigError
from megatron_distill.data.index_file import HeldTables, StoredTables, token_dtype, write_index

DOCUMENTS = [[3, 1], [], [2], [0, 4], [], [5]]
"""Lengths of the sequences of each document."""


def theirs(prefix: Path, dtype: type[np.number], documents: list[list[int]]) -> bytes:
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for lengths in documents:
        builder.add_document(torch.arange(sum(lengths)), lengths)
    builder.finalize(f"{prefix}.idx")
    return Path(f"{prefix}.idx").read_bytes()


def tables(documents: list[list[int]]) -> HeldTables:
    counts = [len(lengths) for lengths in documents]
    marks = np.concatenate(([0], np.cumsum(counts)))[:-1].astype(np.int64) if documents else np.zeros(0, np.int64)
    return HeldTables(np.array(sum(documents, []), np.int32), marks)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("cuts", [[], [0], [1], [2, 2, 5], [6]])
def test_parts_make_the_bytes_that_megatron_core_writes_at_once(
    tmp_path: Path, dtype: type[np.number], cuts: list[int]
) -> None:
    borders = [0, *cuts, len(DOCUMENTS)]
    parts = []
    for i, (begin, end) in enumerate(zip(borders, borders[1:], strict=False)):
        with (tmp_path / f"{i}.idx").open("wb") as file:
            write_index(file, np.dtype(dtype), lambda a=begin, b=end: [tables(DOCUMENTS[a:b])])
        parts.append(StoredTables.of(tmp_path / f"{i}.idx"))
    with (tmp_path / "all.idx").open("wb") as file:
        write_index(file, np.dtype(dtype), lambda: parts)
    assert (tmp_path / "all.idx").read_bytes() == theirs(tmp_path / "theirs", dtype, DOCUMENTS)


def test_no_documents_are_an_index_too(tmp_path: Path) -> None:
    with (tmp_path / "none.idx").open("wb") as file:
        write_index(file, np.dtype(np.uint16), lambda: [tables([])])
    assert (tmp_path / "none.idx").read_bytes() == theirs(tmp_path / "theirs", np.uint16, [])


@pytest.mark.parametrize("content", [b"", b"MMIDIDX\0\0", b"x" * 100])
def test_what_is_no_index_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.idx does not begin as an index does"):
        StoredTables.of(tmp_path / "a.idx")


def test_the_dtype_is_the_smallest_that_megatron_gives_a_vocabulary() -> None:
    assert token_dtype(65499) == np.uint16 and token_dtype(65500) == np.int32
