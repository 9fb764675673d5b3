"""Texts on which libraries differ, and every form of tokenizer compared on them with its own library.

`compare_all()` gives a row for each tokenizer and text: whether the ids that a corpus would hold, by whichever library
made them, are those of the tokenizer's own library.
"""

from __future__ import annotations

import io
import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import normalizers as norm

from megatron_distill.data.prepare.awkward import AWKWARD
from megatron_distill.data.prepare.encode import Encoder
from megatron_distill.data.sentencepiece_json import to_tokenizers
from megatron_distill.data.tokenizer import load_tokenizer
from tests.support.texts import write_text

SPELT_OUT = ("<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "[CLS]", "[UNK]", "<0x0A>", "<extra_0>", "\u2581")
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2, and but for digits Llama 3, cut text."""


class Row(NamedTuple):
    """A comparison."""

    tokenizer: str
    text: str
    equal: bool


def hostile_texts(number: int = 150, seed: int = 0) -> list[str]:
    """AWKWARD, languages in decomposed form, special tokens spelt out, `number` mixtures of all their characters."""
    words = "Việt Nam đất nước, tiếng Việt được những người 안녕하세요 대한민국 값 닭 パーティー ガギグ Ångström naïve"
    texts = [*AWKWARD, *(unicodedata.normalize(form, words) for form in ("NFC", "NFD", "NFKC", "NFKD"))]
    texts += [f"a{token} b {token}{token}\n{token}c" for token in SPELT_OUT]
    texts += ["a" * 20_000, "e\u0301" * 3000, "don't " * 500, " " * 5000, "\u65e5\u672c" * 2000]
    generator = random.Random(seed)
    characters = sorted({character for text in texts for character in text})
    marks = [chr(code) for code in range(0x300, 0x1E00) if unicodedata.combining(chr(code))]
    for _ in range(number):
        pool = generator.choice((characters, [*marks, *"aeiou "], [*"abc \t\n'1.", *SPELT_OUT]))
        texts.append("".join(generator.choice(pool) for _ in range(generator.randint(1, 60))))
    return texts


def compare_all(folder: Path | None = None) -> list[Row]:
    """Rows for every form of tokenizer and every hostile text."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return compare_all(Path(made))
    learned = [json.loads(line)["text"] for line in write_text(folder / "text.jsonl").read_text().splitlines()]
    learned += hostile_texts(0)[10:24]
    texts = hostile_texts()
    rows: list[Row] = []
    for name, path, own in _forms(folder, learned):
        encoder = Encoder(load_tokenizer(path))
        encoder.begin()
        # Not compared as the first documents of a piece are: nothing but the proof decides which library encodes.
        encoder._num_blocks = 1
        found = [ids.tolist() for ids in encoder.encode(texts)]
        rows += [Row(name, text, ids == own(text)) for text, ids in zip(texts, found, strict=True)]
        if path.suffix == ".model":
            rows += _exported(f"{name}, exported", path, own, texts)
    return rows


def _exported(name: str, path: Path, own: Callable[[str], list[int]], texts: list[str]) -> Iterator[Row]:
    """A .model as a tokenizer.json: BPE, but for the exceptions of docs/data.md."""
    from megatron_distill.data.sentencepiece_json import BPE, read_model

    proto = read_model(path)
    if proto.trainer_spec.model_type != BPE:
        return
    normalizes = bool(proto.normalizer_spec.precompiled_charsmap)
    exported = to_tokenizers(path)
    spelt_out = re.compile("|".join(map(re.escape, SPELT_OUT)))
    for text in texts:
        # SentencePiece joins some marks and jamo that Unicode does not join, and leaves others apart.
        composed = unicodedata.normalize("NFC", text)
        joined = not any(unicodedata.category(character) in ("Mn", "Mc", "Me") for character in composed)
        if not spelt_out.search(text) and (not normalizes or (joined and own(composed) == own(text))):
            yield Row(name, text, exported.encode(text, add_special_tokens=False).ids == own(text))


Form = tuple[str, Path, Callable[[str], list[int]]]


def _forms(folder: Path, learned: list[str]) -> Iterator[Form]:
    """Name, path and own library of every form."""
    for name, tokenizer in _tokenizers(learned).items():
        path = folder / name.replace(" ", "_") / "tokenizer.json"
        path.parent.mkdir()
        tokenizer.save(str(path))
        plain = Tokenizer.from_file(str(path))
        plain.no_truncation()
        plain.no_padding()
        yield f"tokenizer.json, {name}", path, _ids_of(plain)
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        yield _pair(folder / names[0].removesuffix(".json"), names, _byte_level(learned, None, None))
    for name, options in MODELS.items():
        path = folder / f"{name.replace(' ', '_')}.model"
        model = _train(path, learned, options)
        yield f"SentencePiece, {name}", path, model.encode


def _tokenizers(learned: list[str]) -> dict[str, Tokenizer]:
    """A tokenizer.json of each kind that people have."""
    split = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = _byte_level(learned, None, None)
    cut.enable_truncation(16)
    cut.enable_padding(length=24, pad_id=0, pad_token="<|endoftext|>")
    framed = _byte_level(learned, None, None)
    framed.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    prefixed = _byte_level(learned, None, pre_tokenizers.ByteLevel(add_prefix_space=True))
    llama2 = norm.Sequence([norm.Prepend("\u2581"), norm.Replace(" ", "\u2581")])
    nothing = norm.Sequence([])
    return {
        "BPE": _byte_level(learned, None, None),
        "BPE NFC": _byte_level(learned, norm.NFC(), pre_tokenizers.Sequence([split, bytes_only])),
        "BPE NFKC": _byte_level(learned, norm.NFKC(), None),
        "BPE lower case": _byte_level(learned, norm.Sequence([norm.NFC(), norm.Lowercase()]), None),
        "BPE prefix space": prefixed,
        "BPE truncation and padding": cut,
        "BPE post-processor": framed,
        "BPE byte fallback": _fallback(learned, llama2, None),
        "BPE Metaspace": _fallback(learned, nothing, pre_tokenizers.Metaspace()),
        "BPE Metaspace, first only": _fallback(
            learned, nothing, pre_tokenizers.Metaspace(split=False, prepend_scheme="first")
        ),
        "WordPiece": _word_piece(learned),
        "Unigram": _unigram(learned),
    }


def _byte_level(learned: list[str], normalizer: Any, pre_tokenizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(learned, trainer)
    return tokenizer


def _fallback(learned: list[str], normalizer: Any, pre_tokenizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        learned, trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False, max_token_length=8)
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are tokens of the model only
    return Tokenizer.from_str(json.dumps(content))


def _word_piece(learned: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = norm.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<eos>"]
    tokenizer.train_from_iterator(learned, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _unigram(learned: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = norm.Sequence([norm.NFKC(), norm.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(learned, trainer)
    return tokenizer


def _pair(folder: Path, names: tuple[str, str], tokenizer: Tokenizer) -> Form:
    """GPT-2's two files."""
    folder.mkdir()
    model = json.loads(tokenizer.to_str())["model"]
    (folder / names[0]).write_text(json.dumps(model["vocab"]))
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""]))
    return f"{names[0]} and {names[1]}", folder, _ids_of(tokenizer)


def _ids_of(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


MODELS: dict[str, dict[str, Any]] = {
    "BPE": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True},
    "BPE nmt_nfkc": {"byte_fallback": True},
    "BPE nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
    "BPE extra white space": {"normalization_rule_name": "identity", "byte_fallback": True},
    "BPE without bytes": {"add_dummy_prefix": False},
    "BPE with pieces of users": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "user_defined_symbols": ["<extra_0>", "[CLS]"],
    },
    "unigram": {"model_type": "unigram", "normalization_rule_name": "identity", "byte_fallback": True},
    "unigram nmt_nfkc": {"model_type": "unigram"},
}
"""Options of SentencePiece's trainer."""


def _train(path: Path, learned: list[str], options: dict[str, Any]) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in learned for line in text.splitlines() if line.strip()),
        model_writer=model,
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **({"model_type": "bpe"} | options),
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
