"""Texts to arrays of token ids, by the fastest library that was seen to give the ids of the tokenizer's own.

`gigatoken` cuts text fifty times faster than `tokenizers` and SentencePiece. It is a second implementation of the same
rules, so it encodes only what it is proved to encode alike (`proved.py`), and it is not trusted with that either: texts
with awkward characters when it is loaded, the first documents of every piece of the corpus and then one in each few
megabytes are encoded by both. Where they differ, the piece is encoded by the tokenizer's own library.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer
from .awkward import awkward_texts
from .proved import NotProved, Proved, every_text, proved_texts

FAST = "gigatoken"
FIRST_CHARACTERS = 10_000
"""Compared at the beginning of each piece. The slow library takes as long for them as the fast one for a megabyte."""
LATER_CHARACTERS, LATER_EVERY = 500, 4
"""Compared of a document in the middle of every fourth block."""


class IdsDiffer(Exception):
    """The fast library gave other ids than the tokenizer's own."""


class Fast(Protocol):
    """gigatoken's tokenizer, as far as it is used."""

    def encode(self, input: str) -> NDArray[np.uint32]:
        """Ids of one text."""


class Encoder:
    """Encodes the texts of one piece after another.

    `num_compared` counts documents that both libraries encoded; `begin` starts a piece.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._own = tokenizer
        self._spelt_out = tokenizer.special_tokens() if isinstance(tokenizer, SentencePieceTokenizer) else []
        self.num_compared, self._num_blocks, self.trusts = 0, 0, False
        self._fast, self._why_slow = load_fast(tokenizer)
        self._proved: Proved = every_text
        try:
            self._proved = proved_texts(tokenizer) if self._fast is not None else every_text
        except NotProved as reason:
            self._fast, self._why_slow = None, str(reason)
        if self._fast is not None and not self._agree(awkward_texts(tokenizer)):
            self._fast, self._why_slow = None, "gigatoken gives other ids for some texts"

    def begin(self, trust: bool = True) -> str:
        """Start a piece, with the fast library if there is one and `trust`; returns FAST or why it is not used."""
        self.trusts, self._num_blocks, self.num_compared = trust and self._fast is not None, 0, 0
        if self.trusts:
            return FAST
        return self._why_slow or "gigatoken gives other ids for some of its texts"

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of each text, without special tokens.

        Raises:
            IdsDiffer: the fast library cannot be trusted with this piece: begin it again without.
        """
        if not self.trusts:
            return self._encode_own(texts)
        compared = self._choose(texts)
        if not self._agree(compared):
            raise IdsDiffer
        self.num_compared += len(compared)
        assert self._fast is not None
        encode = self._fast.encode
        if not self._spelt_out and self._proved is every_text:
            return [encode(text) for text in texts]
        are_plain = [self._is_plain(text) for text in texts]
        others = iter(self._encode_own([text for text, plain in zip(texts, are_plain, strict=True) if not plain]))
        return [encode(text) if plain else next(others) for text, plain in zip(texts, are_plain, strict=True)]

    def _choose(self, texts: Sequence[str]) -> list[str]:
        """Beginnings of documents to compare; each is a text like any other."""
        self._num_blocks += 1
        if self._num_blocks > 1:
            middle = texts[len(texts) // 2 :][:1] if self._num_blocks % LATER_EVERY == 0 else []
            return [text[:LATER_CHARACTERS] for text in middle]
        chosen: list[str] = []
        left = FIRST_CHARACTERS
        for text in texts:
            if left <= 0:
                break
            chosen.append(text[:left])
            left -= len(text)
        return chosen

    def _agree(self, texts: list[str]) -> bool:
        plain = [text for text in texts if self._is_plain(text)]
        fast = self._fast
        assert fast is not None
        pairs = zip(plain, self._encode_own(plain), strict=True)
        return all(np.array_equal(fast.encode(text), own) for text, own in pairs)

    def _is_plain(self, text: str) -> bool:
        """Whether gigatoken may encode a text: proved, and no token spelt out that SentencePiece keeps from text."""
        return self._proved(text) and not any(piece in text for piece in self._spelt_out)

    def _encode_own(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [np.array(ids, dtype=np.uint32) for ids in self._own.encode_batch(list(texts))] if texts else []


def load_fast(tokenizer: Tokenizer) -> tuple[Fast | None, str]:
    """gigatoken's version of a tokenizer; or none, and why: it is not installed or does not know this kind."""
    gigatoken = find_gigatoken()
    if gigatoken is None:
        return None, "gigatoken is not installed (pip install 'megatron_distill[fast]')"
    loaded: Any
    try:
        if isinstance(tokenizer, HuggingFaceTokenizer):
            loaded = gigatoken.Tokenizer.from_json(tokenizer.to_json())
        else:
            loaded = gigatoken.Tokenizer.from_sentencepiece(tokenizer.path)
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:  # kinds that it does not know
        reason = str(error).partition("\n")[0]  # what follows is the place in its source
        return None, f"gigatoken cannot load this tokenizer ({reason})"
    return loaded.backend, ""


def find_gigatoken() -> ModuleType | None:
    """The library, where it is installed."""
    try:
        import gigatoken
    except ImportError:
        return None
    return gigatoken
