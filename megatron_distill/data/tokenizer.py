"""Text to tokens: Hugging Face `tokenizer.json`, GPT-2's two files and SentencePiece models, by path."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from megatron_distill.config.error import ConfigError

from . import gpt2_files
from .sentencepiece_json import to_tokenizers

if TYPE_CHECKING:
    import tokenizers

END_OF_DOCUMENT = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>")
"""Tokens that may end a document, the first that is known wins."""


class Tokenizer(Protocol):
    """What the rest of the project asks of a tokenizer."""

    path: Path

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""

    @property
    def eod_id(self) -> int:
        """Id of the token that ends a document; ConfigError if there is none."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""

    def save_huggingface(self, folder: Path) -> None:
        """Files from which transformers' AutoTokenizer loads the same tokenizer."""


def load_tokenizer(path: str | Path, threads: int | None = None) -> Tokenizer:
    """The tokenizer at `path`: a `tokenizer.json`, a folder with one or with GPT-2's files, a SentencePiece `.model`.

    It encodes on `threads` cores, on all of them if absent.

    Raises:
        ConfigError: nothing there, or no tokenizer.
    """
    path = tokenizer_files(Path(path))[0]
    if not path.exists():
        raise ConfigError(f"there is no tokenizer at {path}; give a tokenizer.json, its folder, or a .model file")
    return SentencePieceTokenizer(path, threads) if path.suffix == ".model" else HuggingFaceTokenizer(path, threads)


def vocab_size(path: str | Path) -> int:
    """Size of the vocabulary of the tokenizer at `path`."""
    return load_tokenizer(path).vocab_size


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the tokenizer's files: two models share a tokenizer if these are equal."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in tokenizer_files(Path(path)))).hexdigest()


def tokenizer_files(path: Path) -> tuple[Path, ...]:
    """The files that make the tokenizer at `path`, the one that names it first."""
    whole = path / "tokenizer.json" if path.is_dir() else path
    pair = gpt2_files.find(path if path.is_dir() else path.parent)
    return pair if pair and (pair[0] == path or (path.is_dir() and not whole.exists())) else (whole,)


class HuggingFaceTokenizer:
    """A `tokenizer.json`, or the vocabulary and merges of GPT-2."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import tokenizers

        self.path = path
        if threads is not None:
            os.environ["RAYON_NUM_THREADS"] = str(threads)  # read by the library when it encodes first
        files = tokenizer_files(path)
        try:
            pair = len(files) == 2
            self._inner = gpt2_files.read(*files) if pair else tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is no tokenizer.json: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Ids are below this, added tokens included."""
        return max(self._inner.get_vocab_size(with_added_tokens=True), max(self._inner.get_vocab().values()) + 1)

    @property
    def eod_id(self) -> int:
        """Id of the first of END_OF_DOCUMENT that the vocabulary has."""
        return _first_known(self._inner.token_to_id, self.path)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def special_tokens(self) -> list[str]:
        """Tokens that are cut out of a text before all else."""
        return [token.content for token in self._inner.get_added_tokens_decoder().values()]

    def to_json(self) -> str:
        """The content of its `tokenizer.json`."""
        return self.path.read_text("utf-8") if len(tokenizer_files(self.path)) == 1 else self._inner.to_str()

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._inner.decode(ids)

    def save_huggingface(self, folder: Path) -> None:
        """tokenizer.json and tokenizer_config.json."""
        _save(self._inner, self.eod_id, folder)


class SentencePieceTokenizer:
    """A SentencePiece `.model`."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import sentencepiece

        self.path, self._threads = path, threads or -1
        try:
            self._inner = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{path} is no SentencePiece model: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return int(self._inner.get_piece_size())

    @property
    def eod_id(self) -> int:
        """SentencePiece's end of sentence, else the first of END_OF_DOCUMENT that is a piece."""
        if self._inner.eos_id() >= 0:
            return int(self._inner.eos_id())
        unknown = self._inner.unk_id()
        return _first_known(lambda t: None if (i := self._inner.piece_to_id(t)) == unknown else i, self.path)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return self._inner.encode(texts, num_threads=self._threads)

    def special_tokens(self) -> list[str]:
        """Tokens that no text becomes, even if it spells them out."""
        pieces = range(self.vocab_size)
        return [self._inner.id_to_piece(i) for i in pieces if self._inner.is_control(i) or self._inner.is_unknown(i)]

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        return self._inner.decode(ids)

    def save_huggingface(self, folder: Path) -> None:
        """tokenizer.json, made from the model, and tokenizer_config.json."""
        _save(to_tokenizers(self.path), self.eod_id, folder)


def _save(tokenizer: tokenizers.Tokenizer, eod_id: int, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    eod = tokenizer.id_to_token(eod_id)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eod,
        "eos_token": eod,
        "pad_token": eod,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def _first_known(token_to_id: Any, path: Path) -> int:
    found = (token_to_id(token) for token in END_OF_DOCUMENT)
    eod = next((i for i in found if i is not None), None)
    if eod is None:
        raise ConfigError(f"{path} has no token that ends a document; it needs one of {', '.join(END_OF_DOCUMENT)}")
    return int(eod)
