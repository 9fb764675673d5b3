"""Training, validation and test parts of one corpus, as Megatron's `--split` means them."""

from __future__ import annotations

import math

from megatron_distill.config.error import ConfigError

from .indexed import IndexedCorpus

Span = tuple[int, int]
"""(first, number) of tokens, documents or sequences."""


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


def split_ranges(count: int, text: str) -> tuple[Span, Span, Span]:
    """(first, number) of `count` documents for each part, rounded to whole documents as megatron-core does."""
    borders, share = [0], 0.0
    for part in parse_split(text):
        share += part
        borders.append(round(share * count))
    borders[-1] = count
    train, valid, test = ((a, b - a) for a, b in zip(borders, borders[1:], strict=False))
    return train, valid, test


def split_spans(corpus: IndexedCorpus, text: str, *, by_sequence: bool = False) -> tuple[Span, Span, Span]:
    """Where the three parts lie in the stream of tokens; a document belongs to one part only.

    Where documents have several sequences, megatron-core counts those: `by_sequence` draws its borders.
    """
    count = corpus.num_sequences if by_sequence else corpus.num_documents
    start = corpus.sequence_start if by_sequence else corpus.document_start
    starts = [start(border) for border in (0, *(first + number for first, number in split_ranges(count, text)))]
    train, valid, test = ((a, b - a) for a, b in zip(starts, starts[1:], strict=False))
    return train, valid, test


def num_windows(corpus: IndexedCorpus, span: Span, seq_length: int, *, random_offset: bool = False) -> int:
    """Samples of `seq_length` + 1 tokens in a span; neighbours share one token, the last of one and first of the next.

    Windows that start up to `seq_length` - 1 tokens late (`random_offset`) are one less.

    Raises:
        ConfigError: not even one.
    """
    count = (span[1] - 1) // seq_length if not random_offset else span[1] // seq_length - 1
    if count < 1:
        needed = f"{seq_length} + 1" if not random_offset else f"{seq_length} x 2"
        raise ConfigError(
            f"{corpus.prefix} gives {span[1]:,} tokens here, fewer than the {needed} of one sample; "
            "give more text, another --split, or a smaller --seq-length"
        )
    return count
