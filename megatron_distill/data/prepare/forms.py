"""What a line of text becomes: the document of a corpus, or a prompt and its response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .corpus import text_of
from .encode import Encoder
from .frame import NONE, Frame


class Documents(NamedTuple):
    """Neighbouring documents as the tables of an `.idx` describe them."""

    tokens: list[NDArray[np.uint32]]
    """The stream, cut anywhere."""
    lengths: list[int]
    """Tokens of each sequence."""
    marks: list[int]
    """Number of each document's first sequence, counted from the first one here."""


class Form(Protocol):
    """A kind of corpus."""

    def texts(self, line: bytes) -> tuple[str, ...]:
        """The texts of a JSON line that are to be encoded. BadLine if they are not there."""

    def documents(self, rows: Sequence[tuple[str, ...]], encoder: Encoder) -> Documents:
        """Documents out of what `texts` gave."""


@dataclass(frozen=True)
class Plain:
    """A document is one sequence: its tokens in their frame.

    A text without tokens becomes a document without a sequence if there is no begin token, as Megatron-LM's script does
    it: numbers of documents and of lines stay the same, and no model learns that nothing follows nothing.
    """

    text_key: str
    frame: Frame

    def texts(self, line: bytes) -> tuple[str, ...]:
        """The document."""
        return (text_of(line, self.text_key),)

    def documents(self, rows: Sequence[tuple[str, ...]], encoder: Encoder) -> Documents:
        """One for each row."""
        begin, end = as_array(self.frame.bos), as_array(self.frame.eod)
        around = begin.size + end.size
        found = Documents([], [], [])
        for ids in encoder.encode([text for (text,) in rows]):
            found.marks.append(len(found.lengths))
            if ids.size or begin.size:
                found.tokens.extend((begin, ids, end) if begin.size else (ids, end))
                found.lengths.append(ids.size + around)
        return found


def as_array(token: int) -> NDArray[np.uint32]:
    """One token, or nothing."""
    return np.array([] if token == NONE else [token], dtype=np.uint32)
