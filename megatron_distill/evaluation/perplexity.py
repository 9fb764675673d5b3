"""Perplexity as the papers measure it, and bits per byte.

Documents, each with the token that ends it (or begins it, where a public model's tokenizer begins every text with one),
form one stream; it is cut into windows of T tokens that share none, in
which the first token is not predicted and documents see each other; what is left at the end is dropped.

    perplexity = exp(sum of -log P / number of predicted tokens)
    bits per byte = mean of -log2 P per token * tokens / bytes of UTF-8     (The Pile, arXiv:2101.00027, 3.1)

Perplexities compare between models with one tokenizer only; bits per byte compare between any two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from numpy.typing import NDArray

from megatron_distill.config.error import ConfigError
from megatron_distill.data.corpus_record import read_corpus_record
from megatron_distill.data.indexed import IndexedCorpus
from megatron_distill.data.prepare.corpus import read_documents
from megatron_distill.data.tokenizer import Tokenizer
from megatron_distill.models.inference import Inference

from .results import Score
from .score import target_log_probs

_DOCUMENTS = 256
"""Encoded or decoded at once."""
_WINDOWS = 64
"""Sent to the ranks at once."""


@dataclass(frozen=True)
class Stream:
    """Text as tokens."""

    tokens: NDArray[np.int64]
    num_bytes: int
    """Of the text in UTF-8."""
    source: str


def read_text(path: Path, tokenizer: Tokenizer, mark: int, *, begins: bool = False) -> Stream:
    """A text file, or the field "text" of JSON lines; the token `mark` ends each document, or `begins` it.

    Raises:
        ConfigError: no such file, or not what it should be.
    """
    if not path.is_file():
        raise ConfigError(f"there is no text file {path}")
    parts: list[list[int]] = []
    num_bytes = 0
    for documents in _in_groups(read_documents(path)):
        num_bytes += sum(len(document.encode()) for document in documents)
        for ids in tokenizer.encode_batch(documents):
            if ids:
                parts += [[mark], ids] if begins else [ids, [mark]]
    tokens = np.concatenate([np.array(part, dtype=np.int64) for part in parts] or [np.zeros(0, np.int64)])
    return Stream(tokens, num_bytes, str(path))


def read_corpus(prefix: Path, tokenizer: Tokenizer, max_tokens: int | None) -> Stream:
    """The first documents of an indexed corpus, as many as have `max_tokens` tokens; all if absent."""
    corpus, record = IndexedCorpus(prefix), read_corpus_record(prefix)
    frame = {record.bos_id, record.eod_id} if record else set()
    parts: list[NDArray[np.int64]] = []
    total = num_bytes = 0
    for number in range(corpus.num_documents):
        if max_tokens is not None and total >= max_tokens:
            break
        parts.append(corpus.document_tokens(number))
        total += len(parts[-1])
        # The tokens that begin and end a document are no text; special ones are not decoded anyway.
        num_bytes += len(tokenizer.decode([token for token in parts[-1].tolist() if token not in frame]).encode())
    return Stream(np.concatenate(parts or [np.zeros(0, np.int64)]), num_bytes, str(prefix))


def _in_groups(documents: Iterator[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for document in documents:
        group.append(document)
        if len(group) == _DOCUMENTS:
            yield group
            group = []
    yield group


def perplexity(
    call: Callable[..., NDArray[np.float64]],
    stream: Stream,
    *,
    seq_length: int,
    vocab_size: int,
    batch_tokens: int,
    max_tokens: int | None = None,
) -> dict[str, Score]:
    """Scores "perplexity" and "bits_per_byte" of a stream; `call` is `Crew.call`.

    Raises:
        ConfigError: less text than a window, a window in which nothing is predicted, or tokens that the model does not
            know.
    """
    if seq_length < 2:
        raise ConfigError(f"windows of {seq_length} token predict nothing; give --seq-length 2 or more")
    count = min(len(stream.tokens), max_tokens or len(stream.tokens)) // seq_length
    if count < 1:
        raise ConfigError(
            f"{stream.source} gives {len(stream.tokens):,} tokens, fewer than the {seq_length} of one window; "
            "give more text or a smaller --seq-length"
        )
    if int(stream.tokens.max()) >= vocab_size:
        raise ConfigError(
            f"{stream.source} has the token {int(stream.tokens.max())}, but the model knows {vocab_size}; "
            "it was made with another tokenizer"
        )
    windows = stream.tokens[: count * seq_length].reshape(count, seq_length)
    parts = [
        call(window_losses, windows[first : first + _WINDOWS], batch_tokens) for first in range(0, count, _WINDOWS)
    ]
    losses = np.concatenate(parts) / (seq_length - 1)  # of windows: equally many tokens in each
    loss = float(losses.mean())
    error = float(losses.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    per_byte = len(stream.tokens) / max(stream.num_bytes, 1) / math.log(2)
    predicted = count * (seq_length - 1)
    value = float(np.exp(loss))  # of a model that has diverged infinity, where math.exp would raise
    size = {"loss": loss, "tokens_per_byte": len(stream.tokens) / max(stream.num_bytes, 1)}
    return {
        "perplexity": Score("ppl", value, error and error * value, predicted, size),
        "bits_per_byte": Score("bits", loss * per_byte, error and error * per_byte, predicted, size),
    }


def window_losses(model: Inference, windows: NDArray[np.int64], batch_tokens: int) -> NDArray[np.float64]:
    """Sum of -log P in nats over each window [windows, seq] but for its first token.

    Collective over the role, the same on every rank.
    """
    size = max(1, batch_tokens // windows.shape[1])
    starts = range(0, len(windows), size)
    rank, replicas = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    found = np.zeros(len(windows))
    for start in starts[rank::replicas]:
        tokens = torch.from_numpy(windows[start : start + size]).to(model.device)
        hidden = model.forward(tokens[:, :-1])
        if hidden is not None:
            flat = hidden.transpose(0, 1).flatten(0, 1)
            indices = torch.arange(len(flat), device=flat.device)
            log_probs, _ = target_log_probs(model, flat, indices, tokens[:, 1:].flatten())
            found[start : start + size] = -log_probs.view(len(tokens), -1).double().sum(1).cpu().numpy()
    if dist.get_world_size() > 1:
        counts = parallel_state.is_pipeline_last_stage() and parallel_state.get_tensor_model_parallel_rank() == 0
        parts: list[NDArray[np.float64] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, found if counts else None)
        found = np.sum([part for part in parts if part is not None], axis=0)
    return found
