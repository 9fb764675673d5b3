"""Our models as lm-evaluation-harness asks for them: it makes the requests and the figures, we the log-likelihoods.

Text becomes tokens as in the harness's own Hugging Face backend, so the same weights get the same scores in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from megatron_distill.config.error import ConfigError
from megatron_distill.generation.generate import generate
from megatron_distill.generation.sampling import Sampling
from megatron_distill.models.inference import Inference

from .crew import Crew
from .score import Score, Tokens, check_continuations, score

_NEW_TOKENS = 256
"""That a request to generate gets if it names no number, as in the harness."""


class HarnessModel(TemplateLM):
    """A model of ours, at all its ranks, for `lm_eval.simple_evaluate` on the first of them."""

    def __init__(self, crew: Crew, tokenizer: Any, *, max_length: int, batch_tokens: int) -> None:
        super().__init__()
        self.crew, self.tokenizer = crew, tokenizer
        self.max_length, self.batch_tokens = max_length, batch_tokens
        self._requests = self._cut = 0

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **ignored: Any) -> list[int]:
        """Tokens of one text; special tokens as the tokenizer wants them, if it is not said."""
        return list(self._encode([string], add_special_tokens)[string])

    def _encode(self, texts: Iterable[str], add_special_tokens: bool | None = None) -> dict[str, Tokens]:
        """Tokens of each of many texts."""
        found: dict[str, Tokens] = {}
        begin = self.tokenizer.decode(self.prefix_token_id)
        # A text that spells out its first token gets no second one.
        for plain in (False, True):
            some = [t for t in dict.fromkeys(texts) if (add_special_tokens is None and t.startswith(begin)) is plain]
            if not some:
                continue
            special = False if plain else add_special_tokens
            options = {} if special is None else {"add_special_tokens": special}
            ids = self.tokenizer(some, return_attention_mask=False, return_token_type_ids=False, **options)["input_ids"]
            found |= zip(some, map(tuple, ids), strict=True)
        return found

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[Score]:
        """Score of each (context, continuation); both are encoded together, and the context's tokens are taken off."""
        pairs = [_with_spaces(*request.args) for request in requests]
        whole = self._encode([context + continuation for context, continuation in pairs if context])
        contexts = self._encode([context for context, _ in pairs if context])
        bare = self._encode([continuation for context, continuation in pairs if not context], False)
        encoded = []
        for context, continuation in pairs:
            if context:
                before = contexts[context]
                encoded.append((before, whole[context + continuation][len(before) :]))
            else:
                ids = bare[continuation]
                known = ids[:1] == (self.prefix_token_id,)
                encoded.append((ids[:1], ids[1:]) if known else ((self.prefix_token_id,), ids))
        scores = self._score(encoded)
        for request, found in zip(requests, scores, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, found)
        return scores

    def notes(self) -> list[str]:
        """What is to be known of the requests since the last call: how many were too long to be scored whole."""
        cut, requests, self._cut, self._requests = self._cut, self._requests, 0, 0
        return (
            [
                f"{cut:,} of {requests:,} continuations are longer than {self.max_length:,} tokens, the last of which "
                "were scored"
            ]
            if cut
            else []
        )

    def _score(self, pairs: list[tuple[Tokens, Tokens]]) -> list[Score]:
        check_continuations(continuation for _, continuation in pairs)
        self._requests += len(pairs)
        self._cut += sum(len(continuation) > self.max_length for _, continuation in pairs)
        return self.crew.call(score, pairs, self.max_length, self.batch_tokens)

    def _loglikelihood_tokens(self, requests: list[Any], **ignored: Any) -> list[Score]:
        return self._score([(tuple(context), tuple(continuation)) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """log P of each text, in windows that overlap in nothing they predict, as the harness cuts them."""
        texts = [request.args[0] for request in requests]
        encoded = self._encode(texts)
        windows: list[tuple[Tokens, Tokens]] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            cut = get_rolling_token_windows(list(encoded[text]), self.prefix_token_id, self.max_length, 1)
            for context, continuation in map(make_disjoint_window, cut):
                windows.append((tuple(context), tuple(continuation)))
                owners.append(number)
        totals = [0.0] * len(texts)
        for owner, (log_prob, _) in zip(owners, self._score(windows), strict=True):
            totals[owner] += log_prob
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Text after each context, up to the first of its stop strings."""
        done: dict[int, str] = {}
        encoded = self._encode([request.args[0] for request in requests])
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for numbers in groups.values():
            settings = dict(requests[numbers[0]].args[1])
            count = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or _NEW_TOKENS)
            room = self.max_length - count
            if room < 1:
                raise ConfigError(f"it asks for {count} new tokens, and the model has {self.max_length} positions")
            prompts = [encoded[requests[n].args[0]][-room:] for n in numbers]
            texts = self.generate(prompts, _sampling(settings), count, numbers)
            for number, text in zip(numbers, texts, strict=True):
                done[number] = _before(text, settings.get("until") or [])
        return [done[number] for number in range(len(requests))]

    def generate(self, prompts: Sequence[Tokens], sampling: Sampling, count: int, rows: Sequence[int]) -> list[str]:
        """The new text after each prompt, decoded; `rows` number them for the random numbers."""
        ids = self.crew.call(continue_all, list(prompts), sampling, count, self.eot_token_id, list(rows), 64)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


def continue_all(
    model: Inference,
    prompts: list[Tokens],
    sampling: Sampling,
    max_new_tokens: int,
    eod: int,
    rows: list[int],
    batch: int,
) -> list[list[int]]:
    """The new tokens of each prompt, `batch` prompts of similar length at a time. Collective over the role."""
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        lengths = torch.tensor([len(prompts[n]) for n in chosen])
        tokens = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.int64)
        for row, number in enumerate(chosen):
            tokens[row, : lengths[row]] = torch.tensor(prompts[number])
        options = {"max_new_tokens": max_new_tokens, "eod": eod, "rows": [rows[n] for n in chosen]}
        done = generate(model, tokens, lengths, sampling, **options)  # type: ignore[arg-type]
        for number, row, end in zip(chosen, done.tokens.tolist(), done.lengths.tolist(), strict=True):
            found[number] = row[len(prompts[number]) : end]
    return found


def _with_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the end of a context belong to the word that follows."""
    kept = context.rstrip()
    return (kept, context[len(kept) :] + continuation) if kept else (context, continuation)


def _sampling(settings: dict[str, Any]) -> Sampling:
    sampled = settings.get("do_sample", float(settings.get("temperature") or 0) > 0)
    return Sampling(
        temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
        top_k=int(settings.get("top_k") or 0),
        top_p=float(settings.get("top_p") or 1.0),
    )


def _before(text: str, stops: str | list[str]) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
