"""Positions to batches: a pure function, so that resuming takes one integer and any rank can ask for any sample."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from megatron_distill import _csrc
from megatron_distill.batch import Batch
from megatron_distill.config.error import ConfigError

from .documents import DocumentRules

Item = TypeVar("Item")


class BatchLoader:
    """Samples as batches; a position counts samples since the start of training.

    csrc/ writes them without the GIL, straight into the tensors that leave here; these are pinned if `pinned`.
    """

    def __init__(
        self, samples: _csrc.SampleSource, rules: DocumentRules | None = None, *, pinned: bool = False
    ) -> None:
        self.samples, self.rules, self.pinned = samples, rules or DocumentRules(), pinned
        self.num_samples = samples.num_samples
        """Samples of an epoch."""
        self.seq_length = samples.seq_length
        self._options = vars(self.rules) if rules else {}

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at `positions`, each tensor [len(positions), seq_length].

        Raises:
            ConfigError: tokens that the model does not know, or an index that lies; names the corpus.
        """
        shape = (len(positions), self.seq_length)
        tokens, labels = self._empty((2, *shape), torch.int64)
        loss_mask, position_ids = self._constants(shape)
        mask = ids = None
        if self.rules.eod_mask_loss:
            loss_mask = self._empty(shape, torch.float32)
            mask = loss_mask.numpy()
        if self.rules.reset_position_ids:
            position_ids = self._empty(shape, torch.int64)
            ids = position_ids.numpy()
        try:
            self.samples.assemble(positions, tokens.numpy(), labels.numpy(), mask, ids, **self._options)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Batch(tokens=tokens, labels=labels, loss_mask=loss_mask, position_ids=position_ids)

    def block(self, positions: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The samples at `positions` as they are, [len(positions), seq_length + 1] of uint16 or int32.

        Raises:
            ConfigError: as `batch`.
        """
        block = self._empty((len(positions), self.seq_length + 1), dtype)
        try:
            self.samples.pack(positions, block.numpy())
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return block

    def iterate(self, position_lists: Iterable[Sequence[int]], depth: int = 2) -> Iterator[Batch]:
        """`batch` of each, read ahead."""
        return read_ahead(self.batch, position_lists, depth)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a loader lives as long as its run
    def _constants(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Loss mask and positions where no rule changes them; expanded, so that writing into them is an error."""
        return torch.ones(1, 1).expand(shape), torch.arange(self.seq_length).expand(shape)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=self.pinned)


def read_ahead(
    read: Callable[[Sequence[int]], Item], position_lists: Iterable[Sequence[int]], depth: int = 2
) -> Iterator[Item]:
    """`read` of each, prepared up to `depth` ahead by a thread; errors of the thread are raised here."""
    ready: queue.Queue[Item | _Failure | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Item | _Failure | None) -> bool:
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
                if not put(read(positions)):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - it is the consumer's to handle
            put(_Failure(error))

    thread = threading.Thread(target=prepare, name="batch-loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
