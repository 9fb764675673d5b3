"""Ids come from the fast library only where they are those of the tokenizer's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_distill.data.prepare import encode
from megatron_distill.data.prepare.awkward import AWKWARD
from megatron_distill.data.prepare.encode import FAST, Encoder, IdsDiffer
from megatron_distill.data.tokenizer import Tokenizer, load_tokenizer

KINDS = ["bpe_file", "sentencepiece_file"]
needs_gigatoken = pytest.mark.skipif(encode.find_gigatoken() is None, reason="gigatoken is not installed")


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return load_tokenizer(request.getfixturevalue(request.param))


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


class Wrong:
    """A fast library that errs on texts with a certain word."""

    def __init__(self, own: Tokenizer, word: str) -> None:
        self._own, self._word = own, word

    def encode(self, input: str) -> NDArray[np.uint32]:
        ids = np.array(self._own.encode_batch([input])[0], dtype=np.uint32)
        return ids[:-1] if self._word in input else ids


def with_fast(tokenizer: Tokenizer, word: str, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setattr(encode, "load_fast", lambda tokenizer: (Wrong(tokenizer, word), ""))
    return Encoder(tokenizer)


@needs_gigatoken
def test_the_fast_library_gives_the_ids_of_the_own_one(tokenizer: Tokenizer, text_file: Path) -> None:
    encoder = Encoder(tokenizer)
    assert encoder.begin() == FAST
    texts = [*AWKWARD, *texts_of(text_file), "it ends with </s> and <s> or <|endoftext|> spelt out"]
    assert [ids.tolist() for ids in encoder.encode(texts)] == tokenizer.encode_batch(texts)
    assert encoder.num_compared >= len(AWKWARD)


def test_without_the_fast_library_the_own_one_makes_the_ids(
    tokenizer: Tokenizer, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "find_gigatoken", lambda: None)
    encoder = Encoder(tokenizer)
    assert encoder.begin() == "gigatoken is not installed (pip install 'megatron_distill[fast]')"
    texts = texts_of(text_file)
    assert [ids.tolist() for ids in encoder.encode(texts)] == tokenizer.encode_batch(texts)
    assert encoder.num_compared == 0


@needs_gigatoken
def test_a_tokenizer_that_the_fast_library_does_not_know_is_encoded_by_its_own(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    words = models.WordLevel({"half": 0, "[UNK]": 1, "<eos>": 2}, unk_token="[UNK]")
    Inner(words).save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(load_tokenizer(tmp_path))
    assert encoder.begin().startswith("gigatoken cannot load this tokenizer (")
    assert encoder.encode(["half", ""])[0].tolist() == [0]


def test_a_library_that_errs_on_awkward_texts_is_not_used(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = with_fast(tokenizer, "tabs", monkeypatch)
    assert encoder.begin() == "gigatoken gives other ids for some texts"
    assert [ids.tolist() for ids in encoder.encode(["tabs"])] == tokenizer.encode_batch(["tabs"])


def test_an_error_at_the_beginning_of_a_piece_is_found(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = with_fast(tokenizer, "pruned", monkeypatch)
    assert encoder.begin() == FAST
    with pytest.raises(IdsDiffer):
        encoder.encode(["the model", "is pruned"])
    assert encoder.begin(trust=False) == "gigatoken gives other ids for some of its texts"
    assert [ids.tolist() for ids in encoder.encode(["pruned"])] == tokenizer.encode_batch(["pruned"])
    assert encoder.begin() == FAST, "the next piece is another text"


def test_an_error_later_in_a_piece_is_found(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = with_fast(tokenizer, "pruned", monkeypatch)
    encoder.begin()
    for _ in range(encode.LATER_EVERY - 1):
        encoder.encode(["the model"])
    with pytest.raises(IdsDiffer):
        encoder.encode(["first", "pruned", "last"])


def test_a_long_document_is_compared_in_part(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = with_fast(tokenizer, "never there", monkeypatch)
    encoder.begin()
    compared: list[str] = []
    monkeypatch.setattr(encoder, "_agree", lambda texts: compared.extend(texts) or True)
    encoder.encode(["a " * 20_000, "b"])
    assert [len(text) for text in compared] == [encode.FIRST_CHARACTERS]
