"""Which samples this rank reads when: a pure function of how many the run has consumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.data import device_expand
from megatron_distill.data.blend import open_blend
from megatron_distill.data.documents import DocumentRules, apply_rules
from megatron_distill.data.loader import BatchLoader, read_ahead
from megatron_distill.data.samples import training_samples, validation_samples
from megatron_distill.parallel import device

from .plan import RunPlan


class Feed:
    """Micro-batches on this rank's device.

    To a GPU go the tokens alone, two bytes each if the vocabulary allows it, and a kernel makes a batch of them there;
    where the kernel was not built, and on a CPU, csrc/ assembles whole batches.
    """

    def __init__(self, plan: RunPlan) -> None:
        data, training, vocab = plan.config.data, plan.config.training, plan.shape.vocab_size
        assert data.data_path is not None
        self.plan = plan
        self.rules = DocumentRules(
            eod=-1 if plan.eod_token is None else plan.eod_token,
            reset_position_ids=data.reset_position_ids,
            eod_mask_loss=data.eod_mask_loss,
        )
        self.packed = device_expand.available()
        self.packed_dtype = torch.uint16 if vocab <= 2**16 else torch.int32
        blend = open_blend("--data-path", data.data_path)
        samples = training_samples(data, blend, num_samples=plan.total_samples, vocab_size=vocab, seed=training.seed)
        self.train = BatchLoader(samples, self.rules, pinned=device.is_cuda())
        if data.valid_data_path is not None:
            blend = open_blend("--valid-data-path", data.valid_data_path)
        held_out = validation_samples(data, blend, whole=data.valid_data_path is not None, vocab_size=vocab)
        self.valid: BatchLoader | None = None
        if held_out is not None:
            self.valid = BatchLoader(held_out, self.rules, pinned=device.is_cuda())

    def training_batches(self, consumed_samples: int) -> Iterator[Batch]:
        """The student's micro-batches on this data-parallel rank, from a position in the data to the end of the run."""
        micro, rank = self.plan.config.training.micro_batch_size, parallel_state.get_data_parallel_rank()
        first, step = consumed_samples + rank * micro, self.plan.layout.data * micro
        return self.batches_at(range(first, self.plan.total_samples, step))

    def batches_at(self, first_samples: Iterable[int]) -> Iterator[Batch]:
        """Micro-batches that begin at the given positions in the data; a thread prepares them ahead."""
        micro = self.plan.config.training.micro_batch_size
        positions = (range(first, first + micro) for first in first_samples)
        for item in read_ahead(lambda at: self._read(self.train, at), positions):
            yield self._on_device(item)

    def validation_batches(self) -> tuple[Iterator[Batch], int]:
        """This rank's part of the validation windows, in order, each once, and how many micro-batches that is.

        What does not fill the last micro-batches is repeated there with a loss mask of zero.
        """
        assert self.valid is not None
        training = self.plan.config.training
        limit = training.eval_iters and training.eval_iters * training.global_batch_size
        windows = min(self.valid.num_samples, limit or self.valid.num_samples)
        micro = training.micro_batch_size
        count = -(-windows // (micro * self.plan.layout.data))
        return self._validation(windows, count), count

    def _validation(self, windows: int, count: int) -> Iterator[Batch]:
        assert self.valid is not None
        micro, rank = self.plan.config.training.micro_batch_size, parallel_state.get_data_parallel_rank()
        for i in range(count):
            numbers = [(i * self.plan.layout.data + rank) * micro + j for j in range(micro)]
            batch = self._on_device(self._read(self.valid, [min(n, windows - 1) for n in numbers]))
            counts = torch.tensor([float(n < windows) for n in numbers], device=batch.loss_mask.device)[:, None]
            yield replace(batch, loss_mask=batch.loss_mask * counts)

    def _read(self, loader: BatchLoader, positions: Sequence[int]) -> Batch | Tensor:
        return loader.block(positions, self.packed_dtype) if self.packed else loader.batch(positions)

    def _on_device(self, item: Batch | Tensor) -> Batch:
        to = device.current()
        if isinstance(item, Tensor):
            return apply_rules(device_expand.expand(item.to(to, non_blocking=True)), self.rules)
        return Batch(*(x.to(to, non_blocking=True) for x in vars(item).values()))
