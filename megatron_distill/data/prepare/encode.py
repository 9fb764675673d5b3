"""Texts to arrays of token ids, by the fastest library that was seen to give the ids of the tokenizer's own.

`gigatoken` cuts text fifty times faster than `tokenizers` and SentencePiece. It is a second implementation of the same
rules, so it is not trusted: texts with awkward characters when it is loaded, the first documents of every piece of the
corpus and then one in each few megabytes are encoded by both. Where they differ, the piece is encoded by the
tokenizer's own library.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer

FAST = "gigatoken"
FIRST_CHARACTERS = 10_000
"""Compared at the beginning of each piece. The slow library takes as long for them as the fast one for a megabyte."""
LATER_CHARACTERS, LATER_EVERY = 500, 4
"""Compared of a document in the middle of every fourth block."""
MOST_SPECIAL = 100
"""Special tokens that are tried; some tokenizers have thousands of the same kind."""
AWKWARD = (
    "",
    " ",
    "\n\n \n",
    " two  spaces \t\ttabs\r\nline",
    "don't I'LL we've o'clock ''",
    "1234567 3.14159 \u00bd \u2167 \u0661\u0662",
    "cafe\u0301 caf\u00e9 \ufb01 \u00a0\u3000\u200b\u2028x",
    "\u65e5\u672c\u8a9e\u043c\u043e\u0434\u0435\u043b\u044c \U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\x00\x7f\ufeff\U0010ffff\u2581_\u2581",
    "<0x41> <mask> [CLS]" + "-" * 77,
)
"""Where two implementations of the same rules part first."""


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
        if not self._spelt_out:
            return [encode(text) for text in texts]
        return [encode(text) if self._is_plain(text) else self._encode_own([text])[0] for text in texts]

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
        pairs = zip(plain, self._encode_own(plain) if plain else [], strict=True)
        return all(np.array_equal(fast.encode(text), own) for text, own in pairs)

    def _is_plain(self, text: str) -> bool:
        """Whether it spells out no token that SentencePiece keeps from text: gigatoken does not."""
        return not any(piece in text for piece in self._spelt_out)

    def _encode_own(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [np.array(ids, dtype=np.uint32) for ids in self._own.encode_batch(list(texts))]


def awkward_texts(tokenizer: Tokenizer) -> list[str]:
    """AWKWARD, and texts around the tokenizer's special tokens."""
    special = tokenizer.special_tokens() if isinstance(tokenizer, HuggingFaceTokenizer) else []
    return [*AWKWARD, *(f"a{token} b {token}{token}\n{token}c" for token in special[:MOST_SPECIAL])]


def load_fast(tokenizer: Tokenizer) -> tuple[Fast | None, str]:
    """gigatoken's version of a tokenizer; or none, and why: it is not installed or does not know this kind."""
    gigatoken = find_gigatoken()
    if gigatoken is None:
        return None, "gigatoken is not installed (pip install gigatoken)"
    loaded: Any
    try:
        if isinstance(tokenizer, HuggingFaceTokenizer):
            loaded = gigatoken.Tokenizer.from_json(tokenizer.to_json())
        else:
            loaded = gigatoken.Tokenizer.from_sentencepiece(tokenizer.path)
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:  # kinds that it does not know
        return None, f"gigatoken cannot load this tokenizer ({error})"
    return loaded.backend, ""


def find_gigatoken() -> ModuleType | None:
    """The library, where it is installed."""
    try:
        import gigatoken
    except ImportError:
        return None
    return gigatoken
