"""A Hugging Face folder through the harness's own backend, for architectures that no family here reads."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

from .request import Evaluation
from .score import check_continuations

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def open_model(asked: Evaluation) -> HFLM:
    """The model, whose log-probabilities are taken in fp32 as ours are: in bf16 many answers would tie.

    Raises:
        ConfigError: transformers cannot read it, or it brings code of its own, which is not run.
    """
    config = read_json(asked.model / "config.json", dict[str, Any])
    if "auto_map" in config:
        raise ConfigError(f"{asked.model} brings its own code, which --backend hf does not run; leave out --backend hf")
    try:
        return TransformersModel(
            pretrained=str(asked.model),
            tokenizer=str(asked.tokenizer or asked.model),
            dtype=_DTYPES.get(asked.precision, "auto"),
            softmax_dtype="float32",
            device="cuda" if torch.cuda.is_available() else "cpu",
            batch_size=16,
            max_length=asked.seq_length,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever a folder of any architecture can make transformers raise
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{asked.model} cannot be read by transformers: {text[0]}") from error


class TransformersModel(HFLM):
    """The harness's backend, which says what it cannot score where it would only assert."""

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> Any:
        check_continuations([continuation for _, _, continuation in requests])
        longest = max((len(continuation) for _, _, continuation in requests), default=0)
        if longest > self.max_length:
            raise ConfigError(f"a continuation has {longest} tokens, and the model reads {self.max_length}")
        return super()._loglikelihood_tokens(requests, *arguments, **options)
