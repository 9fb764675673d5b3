"""Log-likelihoods of continuations, the work behind every multiple-choice task.

What the continuations of one context share is computed once: their context is read into a cache, of which each
continuation gets a copy. And the output matrix is applied where something is asked, not to every token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.models.inference import Inference

Tokens = tuple[int, ...]
Score = tuple[float, bool]
"""log P(continuation | context) in nats, and whether each of its tokens was the likeliest."""
_WORTH_SHARING = 16
"""Tokens of context that must be saved before a copy of its cache is cheaper than reading it again."""
_ROWS_AT_ONCE = 256
"""Rows of logits that exist at a time."""


def check_continuations(continuations: Iterable[Sequence[int]]) -> None:
    """Raise ConfigError if one has no token: the tokenizer has joined its text to the last token of its context."""
    if not all(continuations):
        raise ConfigError(
            "a continuation has no token of its own, since this tokenizer joins it to the end of its context, "
            "so there is nothing to score"
        )


@dataclass
class _Pass:
    """Rows of tokens that are read together, and what is asked: the probability of a token after a row's column."""

    rows: list[Tokens] = field(default_factory=list)
    asked: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(row, column, token, request)"""

    def add(self, row: Tokens, first: int, wanted: Tokens, request: int) -> None:
        """Ask a new row for the tokens `wanted` after its columns from `first` on."""
        self.ask(len(self.rows), first, wanted, request)
        self.rows.append(row)

    def ask(self, row: int, first: int, wanted: Tokens, request: int) -> None:
        """Ask a row for more."""
        self.asked += [(row, first + i, token, request) for i, token in enumerate(wanted)]

    @property
    def size(self) -> int:
        """Tokens that are computed, padding included."""
        return len(self.rows) * max(map(len, self.rows), default=0)


@dataclass
class _Batch:
    """A pass over contexts, and one over the continuations that go on from them."""

    contexts: _Pass = field(default_factory=_Pass)
    continuations: _Pass = field(default_factory=_Pass)
    parents: list[int] = field(default_factory=list)
    """The context of each continuation."""


def score(
    model: Inference, requests: Sequence[tuple[Tokens, Tokens]], max_length: int, batch_tokens: int
) -> list[Score]:
    """The score of each (context, continuation); texts longer than `max_length` + 1 lose their first tokens.

    `batch_tokens` is about how many tokens are computed at once. Collective over the role, the same on every rank.
    """
    distinct = {request: number for number, request in enumerate(dict.fromkeys(requests))}
    batches = list(_batches(list(distinct), max_length, batch_tokens))
    mine = batches[parallel_state.get_data_parallel_rank() :: parallel_state.get_data_parallel_world_size()]
    totals, greedy = np.zeros(len(distinct)), np.ones(len(distinct), dtype=bool)
    for batch in mine:
        for found in _run(model, batch):
            numbers, log_probs, likeliest = found
            np.add.at(totals, numbers, log_probs)
            np.logical_and.at(greedy, numbers, likeliest)
    totals, greedy = _combine(totals, greedy)
    return [(float(totals[distinct[r]]), bool(greedy[distinct[r]])) for r in requests]


def _combine(totals: np.ndarray, greedy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the data-parallel replicas found, each for its own batches, together. Collective over the role."""
    if dist.get_world_size() == 1:
        return totals, greedy
    counts = parallel_state.is_pipeline_last_stage() and parallel_state.get_tensor_model_parallel_rank() == 0
    parts: list[tuple[np.ndarray, np.ndarray] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (totals, greedy) if counts else None)
    found = [part for part in parts if part is not None]
    return np.sum([t for t, _ in found], axis=0), np.all([g for _, g in found], axis=0)


def _batches(requests: list[tuple[Tokens, Tokens]], max_length: int, batch_tokens: int) -> Iterator[_Batch]:
    """Long texts first: what does not fit into memory fails at once, and neighbours are about equally long."""
    groups: dict[Tokens, list[tuple[Tokens, int]]] = {}
    for number, (context, continuation) in enumerate(requests):
        room = max(max_length + 1 - len(continuation), 0)
        groups.setdefault(context[-room:] if room else context[:0], []).append((continuation, number))
    # Each item: the tokens to read, and the (continuation, request) that go on from there, or one that ends them.
    alone: list[tuple[Tokens, int, Tokens, int]] = []
    shared: list[tuple[Tokens, list[tuple[Tokens, int]]]] = []
    for context, continuations in groups.items():
        if len(context) * (len(continuations) - 1) >= _WORTH_SHARING and len(context) > 1:
            shared.append((context, continuations))
        else:
            for continuation, number in continuations:
                text = (context + continuation)[-(max_length + 1) :]
                first = len(text) - 1 - len(continuation)
                wanted = continuation if first >= 0 else continuation[-(len(text) - 1) :]
                alone.append((text[:-1], max(first, 0), wanted, number))
    yield from _pack(sorted(alone, key=lambda item: -len(item[0])), _add_alone, batch_tokens)
    yield from _pack(sorted(shared, key=_length_of_shared), _add_shared, batch_tokens)


def _length_of_shared(item: tuple[Tokens, list[tuple[Tokens, int]]]) -> tuple[int, int]:
    context, continuations = item
    return -len(context), -max(len(continuation) for continuation, _ in continuations)


def _add_alone(batch: _Batch, item: tuple[Tokens, int, Tokens, int]) -> None:
    batch.contexts.add(*item)


def _add_shared(batch: _Batch, item: tuple[Tokens, list[tuple[Tokens, int]]]) -> None:
    context, continuations = item
    parent = len(batch.contexts.rows)
    batch.contexts.rows.append(context)
    for continuation, request in continuations:
        batch.contexts.ask(parent, len(context) - 1, continuation[:1], request)
        if len(continuation) > 1:
            batch.continuations.add(continuation[:-1], 0, continuation[1:], request)
            batch.parents.append(parent)


def _pack(items: list, add: Callable[[_Batch, tuple], None], batch_tokens: int) -> Iterator[_Batch]:
    batch = _Batch()
    for item in items:
        add(batch, item)
        if batch.contexts.size + batch.continuations.size >= batch_tokens:
            yield batch
            batch = _Batch()
    if batch.contexts.rows:
        yield batch


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of every token asked for: the number of its request, its log probability, whether it was the likeliest."""


def _run(model: Inference, batch: _Batch) -> list[Found]:
    contexts, continuations = batch.contexts, batch.continuations
    tokens, lengths = _padded(contexts.rows, model.device)
    if not continuations.rows:
        return _answers(model, model.forward(tokens), contexts)
    longest = max(map(len, continuations.rows))
    cache = model.cache(len(contexts.rows), tokens.shape[1] + longest)
    found = _answers(model, model.forward(tokens, cache), contexts)
    cache.close(torch.tensor(lengths, device=model.device), max(lengths), min(lengths))
    parents = torch.tensor(batch.parents, device=model.device)
    cache = cache.select(parents, [lengths[parent] for parent in batch.parents])
    tokens, _ = _padded(continuations.rows, model.device)
    return found + _answers(model, model.forward(tokens, cache), continuations)


def _padded(rows: list[Tokens], device: torch.device) -> tuple[Tensor, list[int]]:
    """[rows, longest], padded on the right, and the rows' lengths."""
    lengths = [len(row) for row in rows]
    tokens = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return torch.from_numpy(tokens).to(device), lengths


def _answers(model: Inference, hidden: Tensor | None, asked: _Pass) -> list[Found]:
    """What the last stage's hidden states [seq, batch, hidden] say to what was asked."""
    if hidden is None:
        return []
    rows, columns, wanted, requests = np.array(asked.asked, dtype=np.int64).T
    places, which = np.unique(columns * hidden.shape[1] + rows, return_inverse=True)
    order = np.argsort(which, kind="stable")
    chosen = hidden.flatten(0, 1)[torch.from_numpy(places).to(hidden.device)]
    indices, targets = (torch.from_numpy(x[order]).to(hidden.device) for x in (which, wanted))
    log_probs, likeliest = target_log_probs(model, chosen, indices, targets)
    return [(requests[order], log_probs.double().cpu().numpy(), likeliest.cpu().numpy())]


def target_log_probs(model: Inference, hidden: Tensor, indices: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log P(targets[i]) in nats after hidden[indices[i]], fp32 [targets], and whether no token is likelier.

    `hidden` is [places, hidden], `indices` ascend. Last stage; collective over tensor parallelism.
    """
    log_probs = torch.empty(len(targets), device=hidden.device)
    likeliest = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    starts = torch.arange(0, len(hidden) + _ROWS_AT_ONCE, _ROWS_AT_ONCE, device=hidden.device)
    borders = torch.searchsorted(indices, starts).tolist()
    for number, (first, end) in enumerate(zip(borders, borders[1:], strict=False)):
        start = number * _ROWS_AT_ONCE
        logits = model.logits(hidden[start : start + _ROWS_AT_ONCE])
        rows, wanted = indices[first:end] - start, targets[first:end]
        log_probs[first:end], likeliest[first:end] = _log_probs(logits, rows, wanted, model.tp_group)
    return log_probs, likeliest


def _log_probs(logits: Tensor, rows: Tensor, wanted: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """The same for this rank's part of the logits of a few places, [places, vocabulary / tp]."""
    logits = logits.float()
    if group.size() == 1:
        highest, found = logits.amax(-1), logits[rows, wanted]
        return found - logits.logsumexp(-1)[rows], found >= highest[rows]
    width = logits.shape[-1]
    local = wanted - group.rank() * width
    here = (local >= 0) & (local < width)
    highest = logits.amax(-1)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    sums = torch.cat(
        ((logits - highest[:, None]).exp().sum(-1), torch.where(here, logits[rows, local.clamp(0, width - 1)], 0.0))
    )
    dist.all_reduce(sums, group=group)
    total, found = sums.split([len(logits), len(wanted)])
    return found - (total.log() + highest)[rows], found >= highest[rows]
