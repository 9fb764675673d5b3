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
from .special_tokens import SpecialTokens

if TYPE_CHECKING:
    import tokenizers

MODEL = "tokenizer.model"
"""The SentencePiece model of a folder."""


class Tokenizer(Protocol):
    """What the rest of the project asks of a tokenizer."""

    path: Path

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""

    @property
    def eod_id(self) -> int:
        """Id of the token that ends a document: the one the tokenizer's folder names; ConfigError if there is none."""

    @property
    def bos_id(self) -> int | None:
        """Id of the token that the tokenizer itself puts before a text, None if it puts none."""

    def prefix(self) -> list[int]:
        """All tokens that the tokenizer itself puts before a text: `bos_id`, as a rule, or none."""

    @property
    def named_bos_id(self) -> int | None:
        """Id of the begin token that the tokenizer's folder names, whether texts begin with it or not."""

    def token_to_id(self, token: str) -> int | None:
        """Id of a token, None if the vocabulary does not have it."""

    def id_to_token(self, token: int) -> str:
        """The text of a token that the vocabulary has."""

    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added tokens included."""

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


def vocabulary(path: str | Path) -> dict[str, int]:
    """Ids by token of the tokenizer at `path`, added tokens included."""
    return load_tokenizer(path).vocabulary()


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the vocabulary of the tokenizer at `path`: models share a tokenizer if these are equal.

    The same for every form of a tokenizer: GPT-2's files and their tokenizer.json, a .model and its tokenizer.json.
    """
    return fingerprint_of(load_tokenizer(path))


def fingerprint_of(tokenizer: Tokenizer) -> str:
    """The same for a loaded tokenizer."""
    pairs = sorted((i, token) for token, i in tokenizer.vocabulary().items())
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def checksum(path: str | Path) -> str:
    """SHA-256 of the tokenizer's files, of which the rules by which it cuts text are a part."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in tokenizer_files(Path(path)))).hexdigest()


def tokenizer_files(path: Path) -> tuple[Path, ...]:
    """The files that make the tokenizer at `path`, the one that names it first."""
    whole = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not whole.exists() and (path / MODEL).exists():
        whole = path / MODEL
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
        except ConfigError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is no tokenizer.json: {error}") from error
        self._refuse_chance()
        # What a tokenizer.json was last used for is written into it: documents would be cut, or filled up, to a length.
        self._inner.no_truncation()
        self._inner.no_padding()
        self._special = SpecialTokens(path, self._inner.token_to_id)
        ids = self._inner.get_vocab(with_added_tokens=True)
        self._vocab_size = max(self._inner.get_vocab_size(with_added_tokens=True), max(ids.values(), default=-1) + 1)

    def _refuse_chance(self) -> None:
        """A tokenizer that draws lots gives other ids each time, so no corpus could be made again or gone on with."""
        model = self._inner.model
        if getattr(model, "dropout", None):
            raise ConfigError(
                f"{self.path} has a BPE dropout of {model.dropout:.2g}, so a text has other tokens each time; set "
                '"dropout" to null in it'
            )
        if getattr(model, "alpha", None) or (getattr(model, "nbest_size", None) or 0) not in (0, 1):
            raise ConfigError(
                f'{self.path} samples its tokens, so a text has others each time; remove "alpha" and "nbest_size" '
                "from it"
            )

    @property
    def vocab_size(self) -> int:
        """Ids are below this, added tokens included."""
        return self._vocab_size

    @property
    def eod_id(self) -> int:
        """The end token that the folder names, else the first usual one that the vocabulary has."""
        return _end(self._special, None, self.vocab_size)

    @property
    def bos_id(self) -> int | None:
        """The one token that the tokenizer puts before a text, None if it is not one."""
        return _only(self.prefix())

    @property
    def named_bos_id(self) -> int | None:
        """The begin token that the folder names."""
        return self._special.named_bos()

    def prefix(self) -> list[int]:
        """What the post-processor puts before a text; GPT-2's files have none, but tokenizer_config.json may."""
        if len(tokenizer_files(self.path)) == 2:
            return _list(self.named_bos_id) if self._special.adds_bos() else []
        encoded = self._inner.encode("a", add_special_tokens=True)
        length = next((i for i, added in enumerate(encoded.special_tokens_mask) if not added), 0)
        return encoded.ids[:length]

    def token_to_id(self, token: str) -> int | None:
        """Id of a token, None if the vocabulary does not have it."""
        return self._inner.token_to_id(token)

    def id_to_token(self, token: int) -> str:
        """The text of a token that the vocabulary has."""
        return str(self._inner.id_to_token(token))

    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added tokens included."""
        return self._inner.get_vocab(with_added_tokens=True)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def special_tokens(self) -> list[str]:
        """Tokens that are cut out of a text before all else."""
        return [token.content for token in self._inner.get_added_tokens_decoder().values()]

    def to_json(self) -> str:
        """The content of its `tokenizer.json`, without truncation and padding."""
        return self._inner.to_str()

    def normalizer(self) -> dict[str, Any] | None:
        """What is done to a text first, as tokenizer.json has it."""
        normalizer = self._inner.normalizer
        return None if normalizer is None else json.loads(normalizer.__getstate__())

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._inner.decode(ids)

    def save_huggingface(self, folder: Path) -> None:
        """tokenizer.json and tokenizer_config.json."""
        _save(self._inner, self, folder)


class SentencePieceTokenizer:
    """A SentencePiece `.model`."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import sentencepiece

        self.path, self._threads = path, threads or -1
        try:
            self._inner = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{path} is no SentencePiece model: {error}") from error
        self._special = SpecialTokens(path, self.token_to_id)

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return int(self._inner.get_piece_size())

    @property
    def eod_id(self) -> int:
        """The end token that the folder names, else the model's own, else the first usual one that is a piece."""
        return _end(self._special, self._own(self._inner.eos_id()), self.vocab_size)

    @property
    def bos_id(self) -> int | None:
        """The one token that the tokenizer puts before a text, None if it is not one."""
        return _only(self.prefix())

    def prefix(self) -> list[int]:
        """What tokenizer_config.json wants before a text; SentencePiece itself puts nothing there."""
        return _list(self.named_bos_id) if self._special.adds_bos() else []

    @property
    def named_bos_id(self) -> int | None:
        """The begin token that the folder names, else the model's own."""
        named = self._special.named_bos()
        return named if named is not None else self._own(self._inner.bos_id())

    def token_to_id(self, token: str) -> int | None:
        """Id of a piece, None if there is no such piece."""
        found = int(self._inner.piece_to_id(token))
        return found if self._inner.id_to_piece(found) == token else None

    def id_to_token(self, token: int) -> str:
        """The piece of an id below the size of the vocabulary."""
        return self._inner.id_to_piece(token)

    def vocabulary(self) -> dict[str, int]:
        """Ids by piece."""
        return {self._inner.id_to_piece(i): i for i in range(self.vocab_size)}

    @staticmethod
    def _own(token: int) -> int | None:
        """An id as SentencePiece gives it, which is negative where the model has no such token."""
        return int(token) if token >= 0 else None

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
        _save(to_tokenizers(self.path), self, folder)


def _save(inner: tokenizers.Tokenizer, tokenizer: Tokenizer, folder: Path) -> None:
    """The files of a Hugging Face folder; without an end token, as the tokenizer is, they name none."""
    inner.save(str(folder / "tokenizer.json"))
    try:
        eod: int | None = tokenizer.eod_id
    except ConfigError:
        eod = None
    bos = tokenizer.named_bos_id if tokenizer.named_bos_id is not None else eod
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if bos is None else inner.id_to_token(bos),
        "eos_token": None if eod is None else inner.id_to_token(eod),
        "pad_token": None if eod is None else inner.id_to_token(eod),
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def _only(ids: list[int]) -> int | None:
    return ids[0] if len(ids) == 1 else None


def _list(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _end(special: SpecialTokens, own: int | None, vocab_size: int) -> int:
    named = special.named_eos()
    found = next((i for i in (named, own, special.usual_end()) if i is not None), None)
    if found is None:
        raise special.no_end()
    if not 0 <= found < vocab_size:
        raise ConfigError(f"{special.path.parent} names the end token {found}, but has only {vocab_size} tokens")
    return found
