"""A model at work: forward passes without gradients, through a cache and the pipeline's stages.

Every rank of a model calls the same functions in the same order. Stages pass hidden states on as soon as they have
them, so while passes do not depend on each other's outcome, all stages are busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.parallel import device

from .build import Decoder
from .kv_cache import KeyValueCache


class Inference:
    """This rank's part of a decoder, for reading only; made inside its role's world."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.shape = model.shape
        self.device = device.current()
        self.dtype = next(model.parameters()).dtype
        self.tp_group = parallel_state.get_tensor_model_parallel_group()
        self.stages = parallel_state.get_pipeline_model_parallel_world_size()
        self._sent: list[tuple[Any, Tensor]] = []

    def cache(self, batch: int, capacity: int) -> KeyValueCache:
        """An empty cache for `batch` rows of up to `capacity` tokens."""
        heads = self.shape.num_query_groups // self.tp_group.size()
        layers = len(self.model.decoder.layers)
        options = {"dtype": self.dtype, "device": self.device}
        return KeyValueCache(layers, batch, heads, self.shape.head_dim, capacity, **options)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor | None:
        """Hidden states after the final norm of `tokens` [batch, seq], which follow what `cache` holds of their rows.

        [seq, batch, hidden] on the last stage, None on others. The caller closes the pass (`KeyValueCache.close`).
        """
        model = self.model
        if cache is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        else:
            positions = cache.open(tokens.shape[1])
        if model.pre_process:
            hidden = model.embedding(input_ids=tokens, position_ids=positions + model.position_offset)
        else:
            hidden = self._receive(tokens.shape)
        table = self._rotations(positions, cache)
        for number, layer in enumerate(model.decoder.layers):
            hidden, _ = layer(hidden, rotary_pos_emb=table, cache=cache and cache.layer(number))
        if model.post_process:
            return model.decoder.final_layernorm(hidden)
        self._send(hidden)
        return None

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to this rank's part of the vocabulary, [rows, padded vocabulary / tp]. Last stage only."""
        model = self.model
        weight = model.shared_embedding_or_output_weight() if self.shape.tied else None
        logits, _ = model.output_layer(hidden[:, None], weight=weight)
        return logits[:, 0]

    def whole_logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to fp32 [rows, vocabulary], the same on all tensor-parallel ranks. Last stage only."""
        logits = self.logits(hidden)
        if self.tp_group.size() > 1:
            parts = [torch.empty_like(logits) for _ in range(self.tp_group.size())]
            dist.all_gather(parts, logits.contiguous(), group=self.tp_group)
            logits = torch.cat(parts, dim=-1)
        return logits[:, : self.shape.vocab_size].float()

    def from_last_stage(self, value: Tensor) -> Tensor:
        """`value` as the last stage's first tensor-parallel rank has it, on every rank of the model."""
        group = parallel_state.get_model_parallel_group()
        if group.size() > 1:
            source = dist.get_process_group_ranks(group)[(self.stages - 1) * self.tp_group.size()]
            dist.broadcast(value, src=source, group=group)
        return value

    def _rotations(self, positions: Tensor, cache: KeyValueCache | None) -> Tensor | None:
        """Cosines and sines at `positions` [batch, seq], [2, seq, batch or 1, 1, rotary dim / 2]."""
        table = getattr(self.model, "rotary_pos_emb", None)
        if table is None:
            return None
        start, end = (cache.place.start, cache.place.end) if cache else (0, positions.shape[1])
        # Tables are kept by length, so lengths are rounded up to have few.
        angles = table(-(-end // 256) * 256)
        if start >= 0:
            return angles[:, start:end]
        return angles[:, positions.t()].squeeze(3)

    def _send(self, hidden: Tensor) -> None:
        """To the next stage, without waiting until it takes it."""
        to = parallel_state.get_pipeline_model_parallel_next_rank()
        sent = hidden.contiguous()
        self._sent = [(work, kept) for work, kept in self._sent if not work.is_completed()]
        work = dist.isend(sent, to, group=parallel_state.get_pipeline_model_parallel_group())
        self._sent.append((work, sent))

    def _receive(self, shape: torch.Size) -> Tensor:
        batch, seq = shape
        hidden = torch.empty(seq, batch, self.shape.hidden_size, dtype=self.dtype, device=self.device)
        source = parallel_state.get_pipeline_model_parallel_prev_rank()
        dist.recv(hidden, source, group=parallel_state.get_pipeline_model_parallel_group())
        return hidden


_FLAGS = ("sequence_parallel", "reduce_scatter_embeddings", "scatter_to_sequence_parallel")


@contextmanager
def reading(model: Decoder) -> Iterator[Inference]:
    """The model without gradients and without sequence parallelism, which a single token cannot be split by.

    It goes on training afterwards as before.
    """
    switched: list[tuple[Any, str]] = []
    for owner in (model.config, *model.modules()):
        for name in _FLAGS:
            if isinstance(getattr(owner, name, None), bool) and getattr(owner, name):
                setattr(owner, name, False)
                switched.append((owner, name))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield Inference(model)
    finally:
        model.train(was_training)
        for owner, name in switched:
            setattr(owner, name, True)
