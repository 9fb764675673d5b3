"""Other people's SentencePiece models, turned into tokenizer.json."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from megatron_distill.config.error import ConfigError
from megatron_distill.data.sentencepiece_json import to_tokenizers

DECOMPOSED = [
    unicodedata.normalize("NFD", "Việt Nam đất nước"),
    unicodedata.normalize("NFD", "안녕하세요 값"),
    "ﾊﾟｰﾃｨｰ ｶﾞ",
]
TEXTS = [*DECOMPOSED, "", " ", "the model learns", "  two  spaces  ", "line\nline\t", "ﬁ ½ Ⅷ", "日本語 😀", "a   b"]
MODELS: dict[str, dict[str, Any]] = {
    "bpe, as we train it": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "bpe, normalized": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc"},
    "bpe, no prefix": {"model_type": "bpe", "add_dummy_prefix": False},
    "unigram": {"model_type": "unigram"},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False},
}


def train(path: Path, texts: list[str], **options: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines()),
        model_writer=model,
        vocab_size=360,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module")
def texts(text_file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in text_file.read_text().splitlines()]


@pytest.mark.parametrize("model", MODELS)
def test_the_ids_are_sentencepieces(tmp_path: Path, texts: list[str], model: str) -> None:
    theirs = train(tmp_path / "a.model", texts, **MODELS[model])
    ours = to_tokenizers(tmp_path / "a.model")
    for text in TEXTS + texts[:20]:
        assert ours.encode(text).ids == theirs.encode(text), text


def test_a_kind_that_transformers_does_not_know_is_said(tmp_path: Path, texts: list[str]) -> None:
    train(tmp_path / "a.model", texts, model_type="char")
    with pytest.raises(ConfigError, match=r"a\.model is neither a BPE nor a unigram model"):
        to_tokenizers(tmp_path / "a.model")
