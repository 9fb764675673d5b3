"""Rows that public models get at the end of their tables, so that tensor-parallel ranks share them evenly."""

from __future__ import annotations

_MULTIPLE = 128
"""As --make-vocab-size-divisible-by."""


def pad_vocabulary(rows: int) -> int:
    """`rows` rounded up; the model never predicts what is added, and exports leave it out."""
    return -(-rows // _MULTIPLE) * _MULTIPLE
