"""Blending corpora by weight, without a table."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_distill._csrc import GreedyBlend, SampleSource, WeightedBlend
from megatron_distill.config.error import ConfigError
from megatron_distill.config.sections import DataConfig
from megatron_distill.data.blend import open_blend
from megatron_distill.data.indexed import IndexedCorpus, IndexedWriter
from megatron_distill.data.loader import BatchLoader
from megatron_distill.data.samples import stream_samples, training_samples, validation_samples
from tests.support.corpora import write_corpus

SEQ = 8
MANY = 2**40 + 12_345


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[IndexedCorpus]:
    folder = tmp_path_factory.mktemp("blend")
    return [IndexedCorpus(write_corpus(folder / f"text{i}", documents=5 + i, length=30, seed=i)) for i in range(3)]


@pytest.fixture(scope="module")
def source(corpora: list[IndexedCorpus]) -> SampleSource:
    return stream_samples(corpora[0], (0, 100), seq_length=SEQ, vocab_size=60, seed=0)


def due(weights: list[int], count: int) -> list[list[int]]:
    """Webster's method as its definition says it: sort all samples by when they are due."""
    times = [(Fraction(2 * j + 1, 2 * weight), c, j) for c, weight in enumerate(weights) for j in range(count)]
    return [[c, j] for _, c, j in sorted(times)[:count]]


@settings(max_examples=200, deadline=None)
@example(weights=[1, 1, 1, 1])
@example(weights=[2**61, 1])
@given(weights=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2**57)), min_size=1, max_size=9))
def test_samples_come_in_the_order_they_are_due(source: SampleSource, weights: list[int]) -> None:
    blend = WeightedBlend([source] * len(weights), weights)
    assert blend.picks(range(60)).tolist() == due(weights, 60)
    assert blend.picks([59, 3, 3]).tolist() == [due(weights, 60)[i] for i in (59, 3, 3)]


@settings(max_examples=100, deadline=None)
@given(weights=st.lists(st.integers(1, 2**40), min_size=1, max_size=40), first=st.integers(0, 2**44))
def test_each_source_is_read_in_its_own_order_wherever_one_starts(
    source: SampleSource, weights: list[int], first: int
) -> None:
    picks = WeightedBlend([source] * len(weights), weights).picks(range(first, first + 200))
    for c, weight in enumerate(weights):
        own = picks[picks[:, 0] == c, 1]
        assert (np.diff(own) == 1).all()
        if own.size:
            at = first + int(np.flatnonzero(picks[:, 0] == c)[0])
            assert abs(Fraction(weight, sum(weights)) * at - int(own[0])) <= 1 + Fraction(len(weights), 2)


def test_after_the_sum_of_the_weights_each_has_been_given_its_own(source: SampleSource) -> None:
    weights = [5, 1, 7, 13]
    picks = WeightedBlend([source] * 4, weights).picks(range(26))
    assert np.bincount(picks[:, 0]).tolist() == weights


# Part of the format, as the orders of a single corpus are.
def test_the_order_of_a_blend_stays(source: SampleSource) -> None:
    pinned = [[0, 0], [1, 0], [0, 1], [0, 2], [0, 3], [1, 1], [0, 4], [0, 5], [1, 2], [0, 6]]
    assert WeightedBlend([source, source], [7, 3]).picks(range(10)).tolist() == pinned


@pytest.mark.parametrize(
    ("weights", "says"),
    [([1], "one weight for each"), ([1, 0], "above 0"), ([2**62, 1], "2\\^62"), ([2**61, 2**61], "2\\^62")],
)
def test_bad_weights_are_refused(source: SampleSource, weights: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        WeightedBlend([source, source], weights)


def test_sources_of_other_lengths_are_refused(corpora: list[IndexedCorpus], source: SampleSource) -> None:
    other = stream_samples(corpora[0], (0, 100), seq_length=SEQ + 1, vocab_size=60, seed=0)
    with pytest.raises(ValueError, match="differ in sequence length"):
        WeightedBlend([source, other], [1, 1])
    with pytest.raises(ValueError):
        WeightedBlend([], [])


def test_a_greedy_blend_that_asks_for_too_much_is_refused(source: SampleSource) -> None:
    with pytest.raises(ValueError, match="needs 15 samples of corpus 1, which has 12"):
        GreedyBlend([source, source], [0.5, 0.5], 30)


def flags(corpora: list[IndexedCorpus], *weights: str, split: str = "1") -> DataConfig:
    values = [c.prefix for c in corpora]
    if weights:
        values = [value for pair in zip(weights, values, strict=True) for value in pair]
    return DataConfig(data_path=tuple(values), seq_length=SEQ, split=split)


def training(data: DataConfig, seed: int = 5) -> SampleSource:
    assert data.data_path is not None
    return training_samples(data, open_blend("--data-path", data.data_path), num_samples=0, vocab_size=60, seed=seed)


@pytest.mark.parametrize("positions", [range(40), [7, 3, 3, 1000], range(MANY, MANY + 5)])
def test_a_blend_reads_what_its_sources_read(corpora: list[IndexedCorpus], positions: list[int]) -> None:
    blend = training(flags(corpora, "0.2", "0.5", "0.3"))
    alone = [BatchLoader(training(flags([corpus]))) for corpus in corpora]
    assert isinstance(blend, WeightedBlend)
    batch = BatchLoader(blend).batch(positions)
    for row, (c, number) in enumerate(blend.picks(positions).tolist()):
        assert batch.tokens[row].equal(alone[c].batch([number]).tokens[0])
    shares = np.bincount(blend.picks(range(1000))[:, 0]) / 1000
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.002)


def test_a_small_share_of_a_blend_is_exact(corpora: list[IndexedCorpus]) -> None:
    blend = training(flags(corpora, "0.001", "0.9", "0.099"))
    assert isinstance(blend, WeightedBlend)
    assert np.bincount(blend.picks(range(10_000))[:, 0]) == pytest.approx([10, 9000, 990], abs=1)


def test_one_corpus_is_the_same_with_and_without_a_weight(corpora: list[IndexedCorpus]) -> None:
    with_weight, without = training(flags(corpora[:1], "3")), training(flags(corpora[:1]))
    assert BatchLoader(with_weight).batch(range(50)).tokens.equal(BatchLoader(without).batch(range(50)).tokens)


def test_without_weights_one_pass_reads_every_window_once(corpora: list[IndexedCorpus]) -> None:
    blend = training(flags(corpora))
    assert isinstance(blend, WeightedBlend)
    counts = [(30 * (5 + i) - 1) // SEQ for i in range(3)]
    assert blend.num_samples == sum(counts)
    assert np.bincount(blend.picks(range(sum(counts)))[:, 0]).tolist() == counts


def test_validation_reads_each_window_once_whatever_the_weights(corpora: list[IndexedCorpus]) -> None:
    data = flags(corpora, "1", "10", "100", split="1,1,0")
    assert data.data_path is not None
    blend = open_blend("--data-path", data.data_path)
    samples = validation_samples(data, blend, whole=False, vocab_size=60)
    assert isinstance(samples, WeightedBlend)
    picks = samples.picks(range(samples.num_samples)).tolist()
    counts = [(30 * (5 + i - round((5 + i) / 2)) - 1) // SEQ for i in range(3)]
    assert sorted(picks) == [[c, j] for c, count in enumerate(counts) for j in range(count)]


def test_validation_leaves_out_parts_without_a_sample(corpora: list[IndexedCorpus]) -> None:
    data = flags(corpora, split="6,1,0")  # one of 5, 6 and 7 documents rounds to 1, 1 and 1
    assert data.data_path is not None
    blend = open_blend("--data-path", data.data_path)
    assert validation_samples(data, blend, whole=False, vocab_size=60) is not None
    none = DataConfig(data_path=data.data_path, seq_length=SEQ, split="1")
    assert validation_samples(none, blend, whole=False, vocab_size=60) is None


def test_corpora_of_several_dtypes_blend_and_a_token_too_large_names_its_corpus(tmp_path: Path) -> None:
    for name, dtype, token in (("small", np.uint16, 7), ("wide", np.int32, 70_000), ("odd", np.int8, -3)):
        with IndexedWriter(tmp_path / name, np.dtype(dtype)) as writer:
            writer.add_document([1] * 20 + [token] + [2] * 20)
    corpora = [IndexedCorpus(tmp_path / name) for name in ("small", "wide", "odd")]
    loaders = [
        BatchLoader(stream_samples(corpus, (0, 41), seq_length=40, vocab_size=vocab, seed=0))
        for corpus, vocab in zip(corpora, (8, 70_001, 300), strict=True)
    ]
    assert loaders[0].batch([0]).tokens[0, 20] == 7
    assert loaders[1].batch([0]).tokens[0, 20] == 70_000
    assert loaders[1].block([0], torch.int32)[0, 20] == 70_000
    with pytest.raises(ConfigError, match=r"odd has token -3, but the model knows only 300 tokens"):
        loaders[2].batch([0])
    samples = [stream_samples(corpus, (0, 41), seq_length=40, vocab_size=8, seed=0) for corpus in corpora]
    with pytest.raises(ConfigError, match=r"wide has token 70000, but the model knows only 8 tokens; give the tok"):
        BatchLoader(WeightedBlend(samples, [1, 1, 1])).block(range(3), torch.uint16)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["0", "a", "1", "b"], "gives a the weight 0.0, which must be a number above 0"),
        (["-1", "a"], "gives a the weight -1.0"),
        (["1", "a", "nan", "b"], "gives b the weight nan"),
        (["inf", "a"], "gives a the weight inf"),
        (["0.7", "a", "b"], "--data-path 0.7 a b must be prefixes alone, or a weight before each"),
        (["0.7", "a", "b", "0.3"], "must be prefixes alone"),
        (["a", "0.7"], "must be prefixes alone"),
        (["1", "2", "a"], "must be prefixes alone"),
        (["1", "/no/such/corpus"], "there is no file /no/such/corpus.idx"),
    ],
)
def test_a_bad_blend_is_one_sentence(values: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_blend("--data-path", values)
    assert says in str(caught.value)
