"""What a public model says about generating text: the ids that begin, end and pad it, and how tokens are drawn.

It comes from config.json and generation_config.json, travels in the manifest, and goes back to both files unchanged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_distill.config.json_file import read_json
from megatron_distill.data.special_tokens import TokenId

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
NAME = "generation_config.json"


@dataclass(frozen=True)
class _Ids:
    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: TokenId | list[TokenId] | None = None


@dataclass(frozen=True)
class _Drawing(_Ids):
    """What is checked of generation_config.json; transformers' defaults."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    no_repeat_ngram_size: int | None = None


@dataclass(frozen=True)
class GenerationDefaults:
    """Both files, as far as they concern generation."""

    ids: dict[str, Any] = field(default_factory=dict)
    """Those of IDS that config.json names, nulls included."""
    generation: dict[str, Any] | None = None
    """generation_config.json, None if there is none."""

    @classmethod
    def read(cls, folder: Path) -> GenerationDefaults:
        """Those of a Hugging Face folder.

        Raises:
            ConfigError: a damaged file, or ids of another type.
        """
        read_json(folder / "config.json", _Ids)
        config = read_json(folder / "config.json", dict[str, Any])
        ids = {name: config[name] for name in IDS if name in config}
        path = folder / NAME
        if not os.path.lexists(path):
            return cls(ids)
        read_json(path, _Drawing)
        return cls(ids, read_json(path, dict[str, Any]))

    @classmethod
    def from_manifest(cls, values: dict[str, Any]) -> GenerationDefaults:
        """Those that `to_manifest` wrote; none in checkpoints of earlier versions."""
        return cls(dict(values.get("ids", {})), values.get("generation"))

    def to_manifest(self) -> dict[str, Any]:
        """The content as JSON."""
        return {"ids": self.ids} | ({} if self.generation is None else {"generation": self.generation})

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, by generation_config.json, else by config.json as in transformers."""
        for values in (self.generation or {}, self.ids):
            named = values.get("eos_token_id")
            if named is not None:
                return tuple(named) if isinstance(named, list) else (named,)
        return ()

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of `Sampling` that generation_config.json asks for; empty if it asks for none."""
        values = self.generation or {}
        if "do_sample" not in values or values["do_sample"] is None:
            return {}
        if not values["do_sample"]:
            return {"temperature": 0.0}
        named = (("temperature", "temperature"), ("top_k", "top_k"), ("top_p", "top_p"))
        found = {ours: values[theirs] for ours, theirs in named if values.get(theirs) is not None}
        return {"temperature": 1.0, "top_k": _TOP_K} | found


_TOP_K = 50
"""What transformers takes where a generation_config.json names no top_k."""
