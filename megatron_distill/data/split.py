"""Training, validation and test parts of one corpus, as Megatron's `--split` means them."""

from __future__ import annotations

import math

from megatron_distill.config.error import ConfigError

from .indexed import IndexedCorpus

Span = tuple[int, int]
"""(first token, number of tokens)."""


def parse_split(text: str) -> tuple[float, float, float]:
    """Shares that sum to 1 of training, validation and test, from "969,30,1".

    Raises:
        ConfigError: not up to three numbers, negative ones, or none for training.
    """
    try:
        shares = [float(part) for part in text.replace("/", ",").split(",")]
    except ValueError as error:
        raise ConfigError(f"--split {text} must be up to three numbers such as 969,30,1") from error
    if len(shares) > 3 or not all(s >= 0 for s in shares) or not math.isfinite(sum(shares)) or shares[0] <= 0:
        raise ConfigError(f"--split {text} must be up to three numbers of at least 0, the first above 0: 969,30,1")
    shares += [0.0] * (3 - len(shares))
    train, valid, test = (share / sum(shares) for share in shares)
    return train, valid, test


def split_spans(corpus: IndexedCorpus, text: str) -> tuple[Span, Span, Span]:
    """Where the three parts lie; a document belongs to one part only."""
    borders, share = [0], 0.0
    for part in parse_split(text):
        share += part
        borders.append(round(share * corpus.num_documents))
    borders[-1] = corpus.num_documents
    starts = [corpus.document_start(document) for document in borders]
    train, valid, test = ((a, b - a) for a, b in zip(starts, starts[1:], strict=False))
    return train, valid, test


def num_windows(corpus: IndexedCorpus, span: Span, seq_length: int) -> int:
    """Samples of `seq_length` + 1 tokens in a span; neighbours share one token, the last of one and first of the next.

    Raises:
        ConfigError: not even one.
    """
    count = (span[1] - 1) // seq_length
    if count < 1:
        raise ConfigError(
            f"{corpus.prefix} gives {span[1]:,} tokens here, fewer than the {seq_length} + 1 of one sample; "
            "give more text, another --split, or a smaller --seq-length"
        )
    return count
