"""A model and prompts to printed text, on all ranks that torchrun started."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_distill.checkpoint.inference import find_model, inference_layout, load_for_inference, load_tokenizer_of
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.parallel.worlds import Role, job_rank, job_size, open_world

from .sampling import Sampling

DEFAULTS: dict[str, Any] = {"temperature": 0.7}
"""How tokens are drawn where neither the user nor the model says it."""
_LOG = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be continued, and how."""

    model: Path
    prompts: tuple[str, ...]
    max_new_tokens: int
    sampling: Mapping[str, Any]
    """Arguments of `Sampling`; for those that are absent the model's own defaults count, then DEFAULTS."""
    names: tuple[str, ...] = ()
    """What the prompts are called in messages, by default their numbers."""
    tokenizer: Path | None = None
    tensor: int = 1
    pipeline: int = 1
    precision: str = "auto"


def continue_texts(asked: Request) -> list[str] | None:
    """Each prompt and its continuation, up to the token that ends a text; None on ranks but the first.

    Raises:
        ConfigError: no model, no tokenizer, a layout that does not fit, or too many tokens.
    """
    stored = find_model(asked.model)
    size = job_size() // (asked.tensor * asked.pipeline)
    if size != 1:
        raise ConfigError(
            f"{job_size()} ranks are started, but --tensor-model-parallel-size x --pipeline-model-parallel-size is "
            f"{asked.tensor * asked.pipeline}; start that many, more make no text faster"
        )
    layout = inference_layout(stored, job_size(), asked.tensor, asked.pipeline)
    sampling = Sampling(**(DEFAULTS | stored.generation.sampling | dict(asked.sampling)))
    tokenizer = load_tokenizer_of(stored, asked.tokenizer)
    # As the tokenizer has it: that of Llama begins a text with a token of its own.
    ids = [tokenizer(prompt)["input_ids"] for prompt in asked.prompts]
    _check_lengths(asked, stored.shape, [len(row) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    prompts = torch.zeros(len(ids), max(1, int(lengths.max())), dtype=torch.int64)
    for number, row in enumerate(ids):
        prompts[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
    with open_world((Role("generation", layout),)) as world:
        from megatron_distill.models.attention import choose_backend
        from megatron_distill.models.inference import reading

        from .generate import generate

        dtype = _DTYPES.get(asked.precision, stored.dtype)
        backend = choose_backend("auto", "bf16" if dtype is torch.bfloat16 else "fp32")
        with reading(load_for_inference(stored, layout, dtype=dtype, attention_backend=backend)) as model:
            ends = stored.generation.end_ids or tokenizer.eos_token_id
            done = generate(model, prompts, lengths, sampling, max_new_tokens=asked.max_new_tokens, eod=ends)
        if not world.is_first:
            return None
        rows = zip(done.tokens.tolist(), done.lengths.tolist(), strict=True)
        return tokenizer.batch_decode([row[:length] for row, length in rows], skip_special_tokens=True)


def _check_lengths(asked: Request, shape: ModelShape, lengths: list[int]) -> None:
    """Name the prompt that is empty, and warn where texts get longer than the model was made for."""
    for number, length in enumerate(lengths):
        if not length:
            name = asked.names[number] if asked.names else f"prompt {number + 1}"
            raise ConfigError(f"{name} is empty; give at least one token, such as the one that begins a text")
    total = max(lengths) + asked.max_new_tokens
    if total > shape.context_length and shape.sequence_limit is None and job_rank() == 0:
        _LOG.warning(
            "warning: prompt and new tokens are up to %d tokens, but the model was made for %d; text beyond that may "
            "make no sense",
            total,
            shape.context_length,
        )
