"""Which samples this rank reads when: a pure function of how many the run has consumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from megatron.core import parallel_state

from megatron_distill.batch import Batch
from megatron_distill.config.error import ConfigError
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.loader import BatchLoader
from megatron_distill.data.split import split_spans
from megatron_distill.parallel import device

from .plan import RunPlan


class Feed:
    """Micro-batches of this data-parallel rank, on its device."""

    def __init__(self, plan: RunPlan) -> None:
        data, training = plan.config.data, plan.config.training
        assert data.data_path is not None
        self.plan = plan
        self.rank, self.size = parallel_state.get_data_parallel_rank(), plan.layout.data
        corpus = IndexedCorpus(data.data_path)
        spans = split_spans(corpus, data.split)
        self.train = BatchLoader(corpus, span=spans[0], seq_length=data.seq_length, seed=training.seed)
        if data.valid_data_path is not None:
            corpus = IndexedCorpus(data.valid_data_path)
            span = (0, corpus.num_tokens)
        else:
            span = spans[1]
        self.valid: BatchLoader | None = None
        if span[1] > data.seq_length:
            self.valid = BatchLoader(corpus, span=span, seq_length=data.seq_length, seed=training.seed, shuffle=False)

    def training_batches(self, consumed_samples: int) -> Iterator[Batch]:
        """Endless micro-batches from the given position in the data on; a thread prepares them ahead."""
        micro = self.plan.config.training.micro_batch_size

        def positions() -> Iterator[range]:
            first = consumed_samples + self.rank * micro
            while True:
                yield range(first, first + micro)
                first += self.size * micro

        for batch in self.train.iterate(positions()):
            yield self._on_device(batch)

    def validation_batches(self) -> tuple[Iterator[Batch], int]:
        """This rank's part of the validation windows, in order, each once, and how many micro-batches that is.

        What does not fill the last micro-batches is repeated there with a loss mask of zero.
        """
        assert self.valid is not None
        training = self.plan.config.training
        limit = training.eval_iters and training.eval_iters * training.global_batch_size
        windows = min(self.valid.num_samples, limit or self.valid.num_samples)
        micro = training.micro_batch_size
        count = -(-windows // (micro * self.size))
        return self._validation(windows, count), count

    def _validation(self, windows: int, count: int) -> Iterator[Batch]:
        assert self.valid is not None
        micro = self.plan.config.training.micro_batch_size
        for i in range(count):
            numbers = [(i * self.size + self.rank) * micro + j for j in range(micro)]
            batch = self.valid.batch([min(n, windows - 1) for n in numbers])
            counts = torch.tensor([float(n < windows) for n in numbers])[:, None]
            yield self._on_device(replace(batch, loss_mask=batch.loss_mask * counts))

    def _on_device(self, batch: Batch) -> Batch:
        largest, known = int(batch.tokens.max()), self.plan.shape.vocab_size
        if max(largest, int(batch.labels.max())) >= known:
            raise ConfigError(
                f"--data-path {self.plan.config.data.data_path} has token {largest}, but the model knows only "
                f"{known} tokens; give the tokenizer it was made with"
            )
        to = device.current()
        return Batch(*(x.to(to, non_blocking=True) for x in vars(batch).values()))
