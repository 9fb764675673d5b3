"""Which tokens stand at which position, and the thread that reads ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from megatron_distill._csrc import StreamOrder, StreamSource
from megatron_distill.batch import Batch
from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.loader import BatchLoader
from megatron_distill.data.samples import stream_samples
from tests.support.corpora import write_corpus

SEQ = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> IndexedCorpus:
    return IndexedCorpus(write_corpus(tmp_path_factory.mktemp("loader") / "text", documents=7, length=43))


def make(corpus: IndexedCorpus, *, seed: int = 3, seq: int = SEQ, shuffle: bool = True) -> BatchLoader:
    return BatchLoader(stream_samples(corpus, (11, 250), seq_length=seq, vocab_size=60, seed=seed, shuffle=shuffle))


def sample_numbers(loader: BatchLoader, positions: Sequence[int]) -> NDArray[np.int64]:
    assert isinstance(loader.samples, StreamSource)
    return loader.samples.numbers(positions)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_a_batch_is_slices_of_the_span(corpus: IndexedCorpus) -> None:
    stream = np.fromfile(f"{corpus.prefix}.bin", dtype=np.uint16).astype(np.int64)[11 : 11 + 250]
    loader = make(corpus)
    positions = [0, 5, 29, 31, 100]
    batch = loader.batch(positions)
    for row, number in enumerate(sample_numbers(loader, positions)):
        window = stream[number * SEQ : number * SEQ + SEQ + 1]
        assert batch.tokens[row].tolist() == window[:-1].tolist()
        assert batch.labels[row].tolist() == window[1:].tolist()
        assert batch.position_ids[row].tolist() == list(range(SEQ))
        assert batch.loss_mask[row].tolist() == [1.0] * SEQ
    assert [x.dtype for x in vars(batch).values()] == [torch.int64, torch.int64, torch.float32, torch.int64]


# 249 predictions fit in the span: what the division by the length leaves over is not read.
@pytest.mark.parametrize(("seq", "samples"), [(8, 31), (249, 1), (83, 3), (1, 249), (100, 2)])
def test_the_last_window_still_has_its_label(corpus: IndexedCorpus, seq: int, samples: int) -> None:
    loader = make(corpus, seq=seq)
    assert loader.num_samples == samples
    assert loader.batch(range(samples)).labels.shape == (samples, seq)


@pytest.mark.parametrize("epoch", [0, 1, 2, 1000])
def test_every_epoch_visits_each_window_once(corpus: IndexedCorpus, epoch: int) -> None:
    loader = make(corpus)
    first = epoch * loader.num_samples
    assert sorted(sample_numbers(loader, range(first, first + loader.num_samples))) == list(range(31))


def test_every_epoch_and_every_seed_has_an_order_of_its_own(corpus: IndexedCorpus) -> None:
    orders = [
        tuple(sample_numbers(make(corpus, seed=seed), range(epoch * 31, epoch * 31 + 31)))
        for seed in (0, 1, 2, 3)
        for epoch in (0, 1, 2, 3)
    ]
    assert len(set(orders)) == 16
    assert tuple(range(31)) not in orders


def test_without_shuffling_windows_come_in_the_order_of_the_text(corpus: IndexedCorpus) -> None:
    assert sample_numbers(make(corpus, shuffle=False), [0, 1, 30, 31, 63]).tolist() == [0, 1, 30, 0, 1]


def test_a_batch_may_cross_the_border_of_epochs(corpus: IndexedCorpus) -> None:
    loader = make(corpus)
    one_by_one = [int(sample_numbers(loader, [position])[0]) for position in range(28, 35)]
    assert sample_numbers(loader, range(28, 35)).tolist() == one_by_one


def test_the_position_is_all_that_resuming_needs(corpus: IndexedCorpus) -> None:
    uninterrupted = make(corpus).iterate(range(i, i + 4) for i in range(0, 80, 4))
    resumed = make(corpus).iterate(range(i, i + 4) for i in range(36, 80, 4))
    late = list(uninterrupted)[9:]
    assert len(late) == 11
    assert all(same(a, b) for a, b in zip(late, resumed, strict=True))


# These lists are part of the format: another order would make every stored position mean another sample.
@pytest.mark.parametrize(
    ("size", "key", "order"),
    [
        (10, 42, [0, 3, 8, 6, 9, 4, 1, 5, 2, 7]),
        (7, 0, [2, 5, 6, 1, 0, 3, 4]),
        (16, 2**64 - 1, [12, 8, 6, 10, 2, 9, 0, 14, 13, 7, 3, 1, 4, 5, 11, 15]),
        (1, 5, [0]),
    ],
)
def test_the_order_stays_the_one_that_old_runs_used(size: int, key: int, order: list[int]) -> None:
    assert StreamOrder(size, key).at(np.arange(size)).tolist() == order


def test_the_order_of_a_large_corpus_stays_too() -> None:
    assert StreamOrder(78_125_000, 1234).at(np.array([0, 1, 2, 78_124_999])).tolist() == [
        71530433,
        18324136,
        78027970,
        66853095,
    ]


def test_the_loaders_order_stays_too(corpus: IndexedCorpus) -> None:
    assert sample_numbers(make(corpus, seed=1234), [0, 1, 2, 31, 32, 33]).tolist() == [18, 0, 7, 20, 28, 3]


@settings(max_examples=60, deadline=None)
@example(size=1, key=0)
@example(size=4096, key=1)
@example(size=4097, key=1)
@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_the_order_is_a_bijection(size: int, key: int) -> None:
    assert np.array_equal(np.sort(StreamOrder(size, key).at(np.arange(size))), np.arange(size))


@pytest.mark.parametrize("position", [-1, 10, 2**62])
def test_a_position_outside_an_order_is_an_index_error(position: int) -> None:
    with pytest.raises(IndexError, match=f"position {position} is not below 10"):
        StreamOrder(10, 42).at(np.array([3, position]))


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        StreamOrder(0, 42)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_reading_ahead_changes_nothing(corpus: IndexedCorpus, depth: int) -> None:
    loader = make(corpus)
    lists = [[0, 1], [7, 3], [40, 2], [2, 40], [5], []]
    got = list(loader.iterate(lists, depth=depth))
    assert len(got) == len(lists)
    assert all(same(batch, loader.batch(positions)) for batch, positions in zip(got, lists, strict=True))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batch-loader"]


def test_it_reads_only_so_far_ahead(corpus: IndexedCorpus) -> None:
    asked: list[int] = []

    def positions() -> Iterator[list[int]]:
        for i in range(100):
            asked.append(i)
            yield [i]

    batches = make(corpus).iterate(positions(), depth=2)
    for _ in range(5):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(asked) <= 5 + 2 + 1  # taken, waiting, and one that waits for a place


def test_an_error_of_the_thread_is_raised_in_its_turn(corpus: IndexedCorpus) -> None:
    def positions() -> Iterator[list[int]]:
        yield [0]
        raise OSError("the disk is gone")

    batches = make(corpus).iterate(positions())
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert threads() == []


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_early_ends_the_thread(corpus: IndexedCorpus, taken: int) -> None:
    batches = make(corpus).iterate([i] for i in range(1000))
    for _ in range(taken):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threads() == []


def test_the_thread_ends_with_the_positions(corpus: IndexedCorpus) -> None:
    assert len(list(make(corpus).iterate([[0], [1]]))) == 2
    assert threads() == []


@pytest.mark.parametrize("tokens", [0, 8])
def test_a_span_without_a_sample_is_said(corpus: IndexedCorpus, tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"gives {tokens} tokens here, fewer than the 8 \\+ 1.*--seq-length"):
        stream_samples(corpus, (0, tokens), seq_length=8, vocab_size=60, seed=0)


def test_the_shortest_span_has_one_sample(corpus: IndexedCorpus) -> None:
    assert stream_samples(corpus, (0, 9), seq_length=8, vocab_size=60, seed=0).num_samples == 1
