"""Ids are those of the tokenizer's own library, on texts that were made to show where they are not."""

from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer, models

from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.prepare.encode import FAST, Encoder, find_gigatoken
from megatron_distill.data.prepare.outcome import Outcome
from megatron_distill.data.prepare.preprocess import Request, preprocess
from megatron_distill.data.prepare.proved import COMPOSES, NotProved, every_text, proved_texts, stays_in_nfc
from megatron_distill.data.tokenizer import load_tokenizer
from tests.data.hostile_texts import compare_all

needs_gigatoken = pytest.mark.skipif(find_gigatoken() is None, reason="gigatoken is not installed")


def test_every_form_of_tokenizer_gives_the_ids_of_its_own_library(tmp_path: Path) -> None:
    rows = compare_all(tmp_path)
    assert not [(row.tokenizer, row.text) for row in rows if not row.equal]
    counts = Counter(row.tokenizer for row in rows)
    assert len(counts) == 28 and min(counts.values()) > 30


def make(tmp_path: Path, tokenizer: Path, documents: list[str], name: str = "corpus") -> Outcome:
    text = tmp_path / f"{name}.jsonl"
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    prefix = str(tmp_path / name)
    return preprocess(Request(inputs=[str(text)], tokenizer=str(tokenizer), output_prefix=prefix, workers=1))


@pytest.mark.parametrize("padded", [False, True])
def test_truncation_and_padding_of_a_tokenizer_json_change_no_corpus(
    bpe_file: Path, tmp_path: Path, padded: bool
) -> None:
    documents = ["short", "the model learns " * 200, "again"]
    make(tmp_path, bpe_file, documents, "plain")
    inner = Tokenizer.from_file(str(bpe_file))
    inner.enable_truncation(16)
    if padded:
        inner.enable_padding(length=16, pad_id=0, pad_token="<|endoftext|>")
    inner.save(str(tmp_path / "cut.json"))
    make(tmp_path, tmp_path / "cut.json", documents, "cut")
    assert (tmp_path / "cut.bin").read_bytes() == (tmp_path / "plain.bin").read_bytes()
    assert load_tokenizer(tmp_path / "cut.json").encode_batch(documents) == load_tokenizer(bpe_file).encode_batch(
        documents
    )


def test_no_letter_is_lost_after_many_ordinary_documents(tmp_path: Path) -> None:
    ordinary = [f"The model {i} learns again." for i in range(600)]
    hostile = [unicodedata.normalize("NFD", "Việt Nam đất nước 한국어"), "ﾊﾟｰﾃｨｰ ｶﾞ", "e\u0323\u0302"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ordinary, *hostile]),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    path = tmp_path / "default.model"
    path.write_bytes(model.getvalue())
    make(tmp_path, path, [*ordinary, *hostile])
    own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    corpus = IndexedCorpus(tmp_path / "corpus")
    assert [corpus.document_tokens(600 + i).tolist()[:-1] for i in range(3)] == own.encode(hostile)


@pytest.mark.parametrize("setting", [{"dropout": 0.1}])
def test_a_tokenizer_that_draws_lots_is_refused(bpe_file: Path, tmp_path: Path, setting: dict[str, float]) -> None:
    content = json.loads(bpe_file.read_text())
    content["model"] |= setting
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"tokenizer\.json has a BPE dropout of 0\.1, .* set \"dropout\" to null"):
        load_tokenizer(tmp_path)


def with_normalizer(bpe_file: Path, path: Path, normalizer: object) -> Path:
    content = json.loads(bpe_file.read_text()) | {"normalizer": normalizer}
    path.write_text(json.dumps(content))
    return path


NFC = {"type": "NFC"}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


@pytest.mark.parametrize(
    ("normalizer", "composes"),
    [
        (None, False),
        (SPACES, False),
        (NFC, True),
        ({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [NFC]}, SPACES]}, True),
    ],
)
def test_what_is_proved_depends_on_the_normalizer(
    bpe_file: Path, tmp_path: Path, normalizer: object, composes: bool
) -> None:
    tokenizer = load_tokenizer(with_normalizer(bpe_file, tmp_path / "a.json", normalizer))
    assert proved_texts(tokenizer) is (stays_in_nfc if composes else every_text)


@pytest.mark.parametrize("kind", ["NFKC", "NFD", "Lowercase", "StripAccents", "Nmt"])
def test_other_normalizers_are_not_proved(bpe_file: Path, tmp_path: Path, kind: str) -> None:
    normalizer = {"type": "Sequence", "normalizers": [NFC, {"type": kind}]}
    with pytest.raises(NotProved, match=f"not proved equal for the normalizer {kind}"):
        proved_texts(load_tokenizer(with_normalizer(bpe_file, tmp_path / "a.json", normalizer)))


def test_no_character_that_may_combine_counts_as_one_that_stays() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    second = {chr(int(unicodedata.decomposition(c).split()[1], 16)) for c in characters if _is_pair(c)}
    stays = [c for c in characters if not COMPOSES.search(c)]
    assert len(stays) > 40_000
    assert not [hex(ord(c)) for c in stays if unicodedata.combining(c) or c in second]
    assert not stays_in_nfc("e\u0301") and not stays_in_nfc("\u212b") and stays_in_nfc("naïve 日本 한국 😀")


def _is_pair(character: str) -> bool:
    parts = unicodedata.decomposition(character).split()
    return len(parts) == 2 and not parts[0].startswith("<")


@needs_gigatoken
def test_an_nfc_tokenizer_is_still_accelerated(bpe_file: Path, tmp_path: Path) -> None:
    encoder = Encoder(load_tokenizer(with_normalizer(bpe_file, tmp_path / "a.json", NFC)))
    assert encoder.begin() == FAST


@needs_gigatoken
def test_a_vocabulary_without_some_bytes_is_refused_in_one_line(tmp_path: Path, bpe_file: Path) -> None:
    inner = Tokenizer.from_file(str(bpe_file))
    vocabulary = {t: i for t, i in inner.get_vocab().items() if t not in ("\u0100", "\u0101", "\u017f")}
    content = json.loads(bpe_file.read_text())
    content["model"]["vocab"] = vocabulary
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    encoder = Encoder(load_tokenizer(tmp_path))
    reason = encoder.begin()
    assert reason.startswith("gigatoken cannot load this tokenizer (") and "\n" not in reason and len(reason) < 140


def test_words_may_sample_nothing(tmp_path: Path) -> None:
    Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, False)).save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode_batch(["aa"]) == [[1, 1]]
