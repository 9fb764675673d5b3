"""Where training, validation and test documents lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter
from megatron_distill.data.split import parse_split, split_spans

SPLITS = ["969,30,1", "97,3,0", "1,1,1", "1", "50,50", "0.5,0.25,0.25", "1,0,999", "100,0,0", "1/1/2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> IndexedCorpus:
    """37 documents of 0, 1, 2 ... 36 tokens, so that a border tells which document it is."""
    prefix = tmp_path_factory.mktemp("split") / "text"
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for length in range(37):
            writer.add_document([7] * length)
    return IndexedCorpus(prefix)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("969,30,1", (0.969, 0.03, 0.001)),
        ("97/3/0", (0.97, 0.03, 0.0)),
        ("8,2", (0.8, 0.2, 0.0)),
        ("5", (1.0, 0.0, 0.0)),
        ("0.5, 0.25, 0.25", (0.5, 0.25, 0.25)),
    ],
)
def test_shares_sum_to_one(text: str, shares: tuple[float, float, float]) -> None:
    assert parse_split(text) == pytest.approx(shares)


@pytest.mark.parametrize(
    "text", ["", ",", "a", "1,2,3,4", "0,1,0", "-1,2", "1,-1", "nan", "inf,1", "1,,1", "1;2", "1e308,1e308"]
)
def test_a_bad_split_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="--split .* must be up to three numbers .*969,30,1"):
        parse_split(text)


@pytest.mark.parametrize("text", SPLITS)
def test_the_parts_cover_the_corpus_and_cut_no_document(corpus: IndexedCorpus, text: str) -> None:
    spans = split_spans(corpus, text)
    borders = [0, *(first + count for first, count in spans)]
    assert [first for first, _ in spans] == borders[:-1]
    assert borders[-1] == corpus.num_tokens
    assert set(borders) <= {corpus.document_start(i) for i in range(38)}


@pytest.mark.parametrize("text", [text for text in SPLITS if "/" not in text])
def test_documents_go_where_megatron_core_sends_them(corpus: IndexedCorpus, text: str) -> None:
    matrix = convert_split_vector_to_split_matrix(parse_and_normalize_split(text))
    theirs = [(round(part[0] * 37), round(part[1] * 37)) if part else None for part in matrix]
    for span, documents in zip(split_spans(corpus, text), theirs, strict=True):
        if documents is None:
            assert span[1] == 0
        else:
            start, end = (corpus.document_start(document) for document in documents)
            assert span == (start, end - start)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3).filter(lambda shares: shares[0] > 0))
def test_any_shares_leave_nothing_out(corpus: IndexedCorpus, shares: list[float]) -> None:
    spans = split_spans(corpus, ",".join(map(repr, shares)))
    assert all(count >= 0 for _, count in spans)
    assert sum(count for _, count in spans) == corpus.num_tokens


def test_a_corpus_of_one_document_is_all_training(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", np.dtype(np.uint16)) as writer:
        writer.add_document([1, 2, 3])
    assert split_spans(IndexedCorpus(tmp_path / "text"), "969,30,1") == ((0, 3), (3, 0), (3, 0))
