"""The samples of a run, in the order that `--data-order` names; csrc/ computes which stands where.

`stream` needs no table: documents form one stream, windows of it are permuted by a keyed bijection, corpora are blended
by Webster's method. `megatron` is index for index the order of megatron-core's GPTDataset and BlendedDataset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from megatron_distill import _csrc
from megatron_distill.config.error import ConfigError
from megatron_distill.config.sections import DataConfig

from .blend import Blend
from .indexed import IndexedCorpus
from .split import Span, num_windows, split_ranges, split_spans

_SURPLUS = 0.005
"""Samples that megatron-core builds beyond a corpus's share of a blend (`mid_level_dataset_surplus`)."""
_WEIGHT_UNITS = 2**32
"""What the weights of a blend are rounded to, together: a share is off by less than one part in four billion."""


def training_samples(
    data: DataConfig, blend: Blend, *, num_samples: int, vocab_size: int, seed: int
) -> _csrc.SampleSource:
    """The training part of each corpus, blended; `num_samples` is what the whole run reads.

    Raises:
        ConfigError: a part without a sample, or an order that does not go that far.
    """
    check_length(data, blend, num_samples)
    if data.data_order == "megatron":
        return _megatron_samples(data, blend, num_samples=num_samples, vocab_size=vocab_size, seed=seed)
    sources = [
        stream_samples(
            corpus,
            part_spans(data, corpus)[0],
            seq_length=data.seq_length,
            vocab_size=vocab_size,
            seed=seed,
            random_offset=data.random_offset,
        )
        for corpus in blend.corpora
    ]
    if blend.weights is None:
        return _in_proportion(sources)
    total = math.fsum(blend.weights)
    weights = [max(1, round(weight / total * _WEIGHT_UNITS)) for weight in blend.weights]
    return sources[0] if len(sources) == 1 else _csrc.WeightedBlend(sources, weights)


def check_length(data: DataConfig, blend: Blend, num_samples: int) -> None:
    """Nothing, if the order goes as far as a run of `num_samples`.

    Raises:
        ConfigError: megatron-core blends corpora without weights in one pass only, and the run needs more.
    """
    if data.data_order != "megatron" or blend.weights is not None or len(blend.corpora) == 1:
        return
    size = 0
    for corpus in blend.corpora:
        first, count = split_ranges(corpus.num_sequences, data.split)[0]
        size += num_windows(corpus, (0, corpus.tokens_of_sequences(first, first + count)), data.seq_length)
    if num_samples > size:
        raise ConfigError(
            f"--data-path has {size:,} samples in one pass, but the run reads {num_samples:,}; "
            "with --data-order megatron, several passes need a weight before each corpus"
        )


def validation_samples(data: DataConfig, blend: Blend, *, whole: bool, vocab_size: int) -> _csrc.SampleSource | None:
    """Windows of the validation part of each corpus, or of `whole` corpora, each once and in the order of the text.

    Corpora take turns in proportion to their sizes; None if no part has a sample.
    """
    spans = [(0, corpus.num_tokens) if whole else part_spans(data, corpus)[1] for corpus in blend.corpora]
    sources = [
        stream_samples(corpus, span, seq_length=data.seq_length, vocab_size=vocab_size, seed=0, shuffle=False)
        for corpus, span in zip(blend.corpora, spans, strict=True)
        if span[1] > data.seq_length
    ]
    return _in_proportion(sources) if sources else None


def part_spans(data: DataConfig, corpus: IndexedCorpus) -> tuple[Span, Span, Span]:
    """Training, validation and test part of a corpus, with the borders that the order asks for."""
    return split_spans(corpus, data.split, by_sequence=data.data_order == "megatron")


def stream_samples(
    corpus: IndexedCorpus,
    span: Span,
    *,
    seq_length: int,
    vocab_size: int,
    seed: int,
    shuffle: bool = True,
    random_offset: bool = False,
) -> _csrc.StreamSource:
    """Windows of `seq_length` + 1 tokens of a span; window i predicts tokens i T + 1 .. (i + 1) T of it.

    Each epoch goes through all windows once, in an order of its own. With `random_offset`, each starts up to T - 1
    tokens later, by a number that depends on seed and position.

    Raises:
        ConfigError: not even one window.
    """
    num_windows(corpus, span, seq_length, random_offset=random_offset)
    return _csrc.StreamSource(
        corpus.files,
        first=span[0],
        num_tokens=span[1],
        seq_length=seq_length,
        vocab_size=vocab_size,
        seed=seed % 2**64,
        shuffle=shuffle,
        random_offset=random_offset,
    )


def document_samples(
    corpus: IndexedCorpus, sequences: Span, *, seq_length: int, vocab_size: int, num_samples: int, seed: int
) -> _csrc.DocumentSource:
    """GPTDataset over `sequences` of a corpus, as often as `num_samples` samples need; one pass if that is 0.

    Raises:
        ConfigError: not even one sample, or more than 2^32.
    """
    first, end = sequences[0], sequences[0] + sequences[1]
    num_windows(corpus, (0, corpus.tokens_of_sequences(first, end)), seq_length)
    try:
        return _csrc.DocumentSource(
            corpus.files,
            first=first,
            end=end,
            seq_length=seq_length,
            vocab_size=vocab_size,
            num_samples=num_samples,
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(f"{corpus.prefix}: {error}; use --data-order stream") from error


def _in_proportion(sources: list[_csrc.StreamSource]) -> _csrc.SampleSource:
    if len(sources) == 1:
        return sources[0]
    return _csrc.WeightedBlend(sources, [source.num_samples for source in sources])


def _normalised(weights: Sequence[float]) -> list[float]:
    """`normalize` of megatron-core, with the sum of numpy, which rounds otherwise than others."""
    values = np.array(weights, dtype=np.float64)
    return list(map(float, values / np.sum(values)))


def _megatron_samples(
    data: DataConfig, blend: Blend, *, num_samples: int, vocab_size: int, seed: int
) -> _csrc.SampleSource:
    """What BlendedMegatronDatasetBuilder builds: see its `build` for the cases."""

    def source(corpus: IndexedCorpus, samples: int) -> _csrc.DocumentSource:
        part = split_ranges(corpus.num_sequences, data.split)[0]
        return document_samples(
            corpus, part, seq_length=data.seq_length, vocab_size=vocab_size, num_samples=samples, seed=seed
        )

    if blend.weights is not None:
        shares = _normalised(blend.weights)
        needed = [math.ceil(num_samples * share) for share in shares]
        built = [math.ceil(count * (1 + _SURPLUS)) for count in needed]
        # BlendedDataset normalises once more what the builder has normalised: the last bits decide who is next.
        weights, size = _normalised(shares), sum(needed)
    elif len(blend.corpora) == 1:
        return source(blend.corpora[0], num_samples)
    else:
        built = [0] * len(blend.corpora)
    sources = [source(corpus, samples) for corpus, samples in zip(blend.corpora, built, strict=True)]
    if blend.weights is None:
        weights, size = _normalised([one.num_samples for one in sources]), num_samples
    try:
        return _csrc.GreedyBlend(sources, weights, size)
    except ValueError as error:
        raise ConfigError(f"--data-path cannot be blended: {error}; use --data-order stream") from error
