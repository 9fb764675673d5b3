"""Texts on which two implementations of the rules of a tokenizer differ first."""

from __future__ import annotations

from ..tokenizer import HuggingFaceTokenizer, Tokenizer

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
    # Bases with several combining marks, in their canonical order and out of it, also marks of younger Unicodes.
    "Vie\u0323\u0302t \u0111a\u0302\u0301t nu\u031bo\u031b\u0301c e\u0311\u0348x e\u0348\u0311x a\u0344 o\u0328\u0304",
    "e\u1dfa\u082b e\u0735\u1df6 e\u0a4d\u1df9 q\u0307\u0323 \u0e01\u0e48\u0e34 \u05e9\u05bc\u05c1 \u0627\u0655\u0651",
    # Conjoining jamo, half-width voiced kana, kana with separate marks, compatibility ideographs.
    "\u1112\u1161\u11ab\u1100\u1173\u11af \uac00\u11a8 \u1100\u1161\u1100\ud55c",
    "\uff8a\uff9f\uff70\uff83\uff68\uff70 \uff76\uff9e\uff77\uff9e \u304b\u3099\u306f\u309a \uf900\ufa2d \u212b\u2126",
    # Every control character, and white space of all kinds around words.
    "".join(f"a{chr(code)}b " for code in (*range(32), *range(0x7F, 0xA1), 0xAD, 0x61C, 0x180E)),
    "".join(f"{chr(code)}w{chr(code)}{chr(code)}" for code in (*range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F)),
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \u2764\ufe0f",
    "\u202eabc\u202c \u2066x\u2069 \ufffc\ufffd \ue000 \U000e0001 \U000f0000",
    "x" * 3000 + " " + "\u00e4" * 700 + " " * 300 + "0" * 500 + "\n" * 200,
    "\u0130stanbul \u0131\u017f \u1e9e\u00df \u03a3\u03c3\u03c2 \ua7ff \U0001d400 \u2460 \u33a5 \uff21\uff42\uff5e",
)
"""Characters in which normalizers, pre-tokenizers and byte fallback differ."""


def awkward_texts(tokenizer: Tokenizer) -> list[str]:
    """AWKWARD, and texts around the tokenizer's special tokens."""
    special = tokenizer.special_tokens() if isinstance(tokenizer, HuggingFaceTokenizer) else []
    return [*AWKWARD, *(f"a{token} b {token}{token}\n{token}c" for token in special[:MOST_SPECIAL])]
