"""The corpus format against megatron-core's own reader and writer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter, token_dtype

DOCUMENTS = [[5, 6, 7], [], [60000], [], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
DTYPES = [np.uint16, np.int32]


def write_ours(prefix: Path, dtype: type[np.integer] = np.uint16, documents: list[list[int]] = DOCUMENTS) -> Path:
    with IndexedWriter(prefix, np.dtype(dtype)) as writer:
        for document in documents:
            writer.add_document(document)
    return prefix


def write_theirs(
    prefix: Path, documents: list[list[list[int]]], dtype: type[np.number] = np.int32, modes: bool = False
) -> Path:
    """Documents of sequences, by megatron-core."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype, multimodal=modes)
    for sequences in documents:
        tokens = [token for sequence in sequences for token in sequence]
        lengths = [len(sequence) for sequence in sequences]
        builder.add_document(torch.tensor(tokens), lengths, [1] * len(lengths) if modes else None)
    builder.finalize(f"{prefix}.idx")
    return prefix


def contents(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}.{kind}").read_bytes() for kind in ("bin", "idx")]


def read(corpus: IndexedCorpus) -> list[list[int]]:
    return [corpus.document_tokens(i).tolist() for i in range(corpus.num_documents)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("documents", [DOCUMENTS, [[]], []], ids=["some", "one empty", "none"])
def test_we_write_the_bytes_megatron_core_writes(
    tmp_path: Path, dtype: type[np.integer], documents: list[list[int]]
) -> None:
    ours = write_ours(tmp_path / "ours", dtype, documents)
    theirs = write_theirs(tmp_path / "theirs", [[d] for d in documents], dtype)
    assert contents(ours) == contents(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_megatron_core_reads_what_we_write(tmp_path: Path, dtype: type[np.integer]) -> None:
    theirs = IndexedDataset(str(write_ours(tmp_path / "ours", dtype)))
    assert [document.tolist() for document in theirs] == DOCUMENTS
    assert theirs.document_indices.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16])
@pytest.mark.parametrize("modes", [False, True], ids=["plain", "with modes"])
def test_we_read_what_megatron_core_writes(tmp_path: Path, dtype: type[np.number], modes: bool) -> None:
    documents = [[[1, 2], [3]], [[]], [[], [4, 5, 6], []], [[127]]]
    corpus = IndexedCorpus(write_theirs(tmp_path / "theirs", documents, dtype, modes))
    assert corpus.dtype == dtype
    assert (corpus.num_documents, corpus.num_tokens, corpus.max_token()) == (4, 7, 127)
    assert read(corpus) == [[1, 2, 3], [], [4, 5, 6], [127]]
    assert [corpus.document_start(i) for i in range(5)] == [0, 3, 3, 6, 7]


def test_negative_tokens_keep_their_sign(tmp_path: Path) -> None:
    corpus = IndexedCorpus(write_theirs(tmp_path / "theirs", [[[-1, -128, 127]]], np.int8))
    assert corpus.windows([0], 3).tolist() == [[-1, -128, 127]]


def test_the_dtype_is_the_smallest_that_megatron_gives_a_vocabulary() -> None:
    assert token_dtype(65499) == np.uint16 and token_dtype(65500) == np.int32


def test_windows_are_slices_of_the_stream(tmp_path: Path) -> None:
    corpus = IndexedCorpus(write_ours(tmp_path / "ours"))
    stream = np.array([token for document in DOCUMENTS for token in document])
    got = corpus.windows([10, 0, 3], 3)
    assert got.dtype == np.int64
    assert got.tolist() == [stream[i : i + 3].tolist() for i in (10, 0, 3)]
    assert corpus.windows([0], 13).tolist() == [stream.tolist()]
    assert corpus.windows([13], 0).shape == (1, 0)


@pytest.mark.parametrize(
    ("starts", "length"),
    [([11], 3), ([-1], 1), ([0, 13], 1), ([0], 14), ([0], -1), ([2**63 - 1], 2), ([0], 2**62), ([-(2**63)], 3)],
)
def test_windows_outside_the_corpus_are_index_errors(tmp_path: Path, starts: list[int], length: int) -> None:
    corpus = IndexedCorpus(write_ours(tmp_path / "ours"))
    with pytest.raises(IndexError):
        corpus.windows(starts, length)


@pytest.mark.parametrize("document", [-1, 6, 2**62])
def test_documents_outside_the_corpus_are_index_errors(tmp_path: Path, document: int) -> None:
    corpus = IndexedCorpus(write_ours(tmp_path / "ours"))
    with pytest.raises(IndexError, match=f"no document {document}"):
        corpus.document_start(document)


def test_an_empty_corpus_has_no_largest_token(tmp_path: Path) -> None:
    corpus = IndexedCorpus(write_ours(tmp_path / "ours", documents=[]))
    assert (corpus.num_tokens, corpus.max_token(), corpus.document_start(0)) == (0, -1, 0)


def test_a_name_of_bytes_that_are_no_utf8_is_opened(tmp_path: Path) -> None:
    prefix = tmp_path / os.fsdecode(b"n\xff")
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        writer.add_document([1, 2, 3])
    assert IndexedCorpus(prefix).document_tokens(0).tolist() == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"no corpus '.*other.udcff' can be opened"):
        IndexedCorpus(tmp_path / os.fsdecode(b"other\xff"))
