"""For which texts gigatoken was compared with a tokenizer's own library on every kind of character, and was equal.

Normalization is where it differs: NFC with combining marks of younger Unicodes, SentencePiece's character maps on what
is not ASCII, removing white space that is not a space. So a tokenizer that normalizes is proved for the texts that its
normalization leaves as they are, or not at all; the others are encoded by its own library.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from ..sentencepiece_json import read_model
from ..tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer

Proved = Callable[[str], bool]
"""Whether a text is encoded alike."""
CHARACTER_MAPS = ("nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf")
"""SentencePiece's own; fuzzed with ASCII texts."""
COMPOSES = re.compile(
    "[^\0-\u02ff\u0370-\u0377\u037a-\u037f\u0384-\u0482\u048a-\u052f\u2000-\u206f\u2070-\u209c\u20a0-\u20bf\u2100-\u2bff"
    "\u3000-\u3029\u3030-\u3096\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9d\uffe0-\uffee"
    "\U0001f000-\U0001faff]"
)
"""A character that may combine with another; a set that is known to hold no other would need a Unicode of today."""


class NotProved(Exception):
    """gigatoken is not used with this tokenizer; says why."""


def proved_texts(tokenizer: Tokenizer) -> Proved:
    """Which texts gigatoken may encode.

    Raises:
        NotProved: none.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _proved_of_model(tokenizer)
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    return _proved_of(tokenizer.normalizer())


def every_text(text: str) -> bool:
    """True."""
    return True


def stays_in_nfc(text: str) -> bool:
    """Whether NFC of any Unicode version leaves a text as it is, character by character."""
    return text.isascii() or (COMPOSES.search(text) is None and unicodedata.is_normalized("NFC", text))


def _proved_of_model(tokenizer: SentencePieceTokenizer) -> Proved:
    proto = read_model(tokenizer.path)
    spec = proto.normalizer_spec
    unusual = proto.trainer_spec.treat_whitespace_as_suffix or not spec.escape_whitespaces
    if spec.precompiled_charsmap and spec.name in CHARACTER_MAPS and not unusual:
        return str.isascii
    if spec.precompiled_charsmap or spec.remove_extra_whitespaces or unusual:
        raise NotProved(f"gigatoken is not proved equal for the normalization {spec.name!r} of this model")
    return every_text


def _proved_of(normalizer: dict[str, Any] | None) -> Proved:
    steps = [normalizer] if normalizer else []
    while any(step["type"] == "Sequence" for step in steps):
        steps = [inner for step in steps for inner in (step.get("normalizers", [step]))]
    composes = False
    for step in steps:
        if step["type"] == "NFC":
            composes = True
        elif step["type"] != "Prepend" and (step["type"] != "Replace" or step["pattern"] != {"String": " "}):
            raise NotProved(f"gigatoken is not proved equal for the normalizer {step['type']}")
    return stays_in_nfc if composes else every_text
