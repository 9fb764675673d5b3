"""Positions to batches: a pure function, so that resuming takes one integer and any rank can ask for any sample."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from megatron_distill import _csrc
from megatron_distill.batch import Batch

from .indexed import IndexedCorpus
from .split import Span, num_windows


class BatchLoader:
    """Windows of `seq_length` + 1 tokens of a span of a corpus; window i predicts tokens i T + 1 .. (i + 1) T of it.

    A position counts samples since the start of training. Each epoch goes through all windows once, in an order of its
    own that a keyed bijection gives: no table, whatever the size of the corpus.
    """

    def __init__(self, corpus: IndexedCorpus, *, span: Span, seq_length: int, seed: int, shuffle: bool = True) -> None:
        self.corpus, self.first, self.seq_length, self.seed, self.shuffle = corpus, span[0], seq_length, seed, shuffle
        self.num_samples = num_windows(corpus, span, seq_length)
        """Windows of an epoch."""

    def sample_numbers(self, positions: Sequence[int]) -> NDArray[np.int64]:
        """The window that stands at each position."""
        at = np.asarray(positions, dtype=np.int64)
        epochs, within = np.divmod(at, self.num_samples)
        if not self.shuffle:
            return within
        numbers = np.empty_like(within)
        for epoch in np.unique(epochs):
            key = (self.seed * 0x9E3779B97F4A7C15 + int(epoch)) % 2**64
            chosen = epochs == epoch
            numbers[chosen] = _csrc.StreamOrder(self.num_samples, key).at(within[chosen])
        return numbers

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at `positions`, each tensor [len(positions), seq_length]."""
        starts = self.first + self.sample_numbers(positions) * self.seq_length
        block = torch.from_numpy(self.corpus.windows(starts, self.seq_length + 1))
        return Batch(
            tokens=block[:, :-1],
            labels=block[:, 1:],
            loss_mask=torch.ones(len(positions), self.seq_length),
            position_ids=torch.arange(self.seq_length).expand(len(positions), -1),
        )

    def iterate(self, position_lists: Iterable[Sequence[int]], depth: int = 2) -> Iterator[Batch]:
        """`batch` of each, prepared up to `depth` ahead by a thread; errors of the thread are raised here."""
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
        stop = threading.Event()

        def put(item: Batch | BaseException | None) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def prepare() -> None:
            try:
                for positions in position_lists:
                    if not put(self.batch(positions)):
                        return
                put(None)
            except BaseException as error:  # noqa: BLE001 - it is the consumer's to handle
                put(error)

        thread = threading.Thread(target=prepare, name="batch-loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
