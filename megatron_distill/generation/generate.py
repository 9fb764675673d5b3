"""Prompts to text, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import check_sequence
from megatron_distill.models.inference import Inference
from megatron_distill.models.kv_cache import KeyValueCache

from .sampling import Sampling, choose, forbid_repeats


@dataclass(frozen=True)
class Generated:
    """Prompts and what follows them, the same on every rank."""

    tokens: Tensor
    """int64 [batch, longest]; each row's prompt, its new tokens right after it, then padding."""
    lengths: Tensor
    """int64 [batch], prompt and new tokens, the end of the text included."""


def generate(
    model: Inference,
    prompts: Tensor,
    lengths: Tensor,
    sampling: Sampling,
    *,
    max_new_tokens: int,
    eod: int | Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> Generated:
    """Continue `prompts` [batch, longest prompt], int64, of `lengths` [batch], padded on the right with any token.

    A row ends with the token `eod`, or any of several, or after `max_new_tokens`. `rows` number them for the random
    numbers; a row with the same number, seed and prompt gets the same text in any batch. Collective over the ranks of
    the model, which all give the same arguments and get the same result.

    Raises:
        ConfigError: an empty prompt, a token that the model does not have, or more tokens than it has positions for.
    """
    known = lengths.tolist()
    _check(model, known, max_new_tokens)
    _check_tokens(prompts, lengths, model.shape.vocab_size)
    batch, longest = prompts.shape
    ends = () if eod is None else (eod,) if isinstance(eod, int) else tuple(eod)
    pad = ends[0] if ends else 0
    tokens = torch.full((batch, longest + max_new_tokens), pad, dtype=torch.int64, device=model.device)
    columns = torch.arange(longest, device=model.device)
    lengths = lengths.to(model.device)
    tokens[:, :longest] = prompts.to(model.device).masked_fill(columns >= lengths[:, None], pad)
    draws = sampling.draws(rows if rows is not None else range(batch), max_new_tokens).to(model.device)

    active = list(range(batch))  # rows that have not ended
    cache = model.cache(batch, max(known) + max_new_tokens)
    fed = tokens[:, : max(known)]
    for step in range(max_new_tokens):
        alive = torch.tensor(active, device=model.device)
        now = [known[row] for row in active]
        last = _read(model, fed, cache, now)
        new = torch.zeros(len(active), dtype=torch.int64, device=model.device)
        if last is not None:
            logits = model.whole_logits(last)
            if sampling.no_repeat_ngram:
                logits = forbid_repeats(logits, tokens[alive], now, sampling.no_repeat_ngram)
            new = choose(logits, draws[alive, step], sampling)
        new = model.from_last_stage(new)
        tokens[alive, torch.tensor(now, device=model.device)] = new
        for row in active:
            known[row] += 1
        ended = [token in ends for token in new.tolist()] if ends else [False] * len(active)
        fed = new[:, None]
        if any(ended):
            kept = [i for i, end in enumerate(ended) if not end]
            if not kept:
                break
            # Rows that have ended cost nothing more.
            chosen = torch.tensor(kept, device=model.device)
            cache = cache.select(chosen, [now[i] for i in kept])
            fed, active = fed[chosen], [active[i] for i in kept]
    return Generated(tokens[:, : max(known)], torch.tensor(known, device=model.device))


def _read(model: Inference, tokens: Tensor, cache: KeyValueCache, lengths: list[int]) -> Tensor | None:
    """Let the model read the next tokens [rows, count] of rows that are `lengths` long with them.

    Hidden states at each row's last token, [rows, hidden], on the last stage.
    """
    before = cache.lengths
    hidden = model.forward(tokens, cache)
    after = torch.tensor(lengths, device=model.device)
    cache.close(after, max(lengths), min(lengths))
    if hidden is None:
        return None
    return hidden[after - 1 - before, torch.arange(len(lengths), device=model.device)]


def _check_tokens(prompts: Tensor, lengths: Tensor, vocab_size: int) -> None:
    real = torch.arange(prompts.shape[1], device=prompts.device) < lengths.to(prompts.device)[:, None]
    wrong = prompts[real & ((prompts < 0) | (prompts >= vocab_size))]
    if wrong.numel():
        raise ConfigError(
            f"a prompt has the token {int(wrong[0])}, but the model knows only {vocab_size} tokens; give the tokenizer "
            "that it was trained with"
        )


def _check(model: Inference, lengths: list[int], max_new_tokens: int) -> None:
    if min(lengths) < 1:
        raise ConfigError("a prompt is empty; give at least one token, such as the one that begins a text")
    if max_new_tokens < 1:
        raise ConfigError(f"the number of new tokens {max_new_tokens} must be at least 1")
    total = max(lengths) + max_new_tokens
    given = f"a prompt of {max(lengths)} tokens and {max_new_tokens} new ones, together {total},"
    check_sequence(model.shape, total, given, "the model")
