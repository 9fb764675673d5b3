"""config.json of a Hugging Face folder, read with its types checked; it is data and nothing in it is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError

_LLAMA3 = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
"""The numbers of Llama 3.1 to 3.3, which megatron-core's rotary table has built in."""


class HFConfig:
    """The values of a config.json. Every method raises ConfigError, naming the file, for what it cannot accept."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    @classmethod
    def read(cls, folder: Path) -> HFConfig:
        """The configuration of a model's folder."""
        path = folder / "config.json"
        if not path.is_file():
            raise ConfigError(f"{folder} is not a Hugging Face model: it has no config.json")
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is damaged: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
            raise ConfigError(f"{path} describes no model: it has no model_type")
        return cls(values, str(path))

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1, `default` if it is absent or null."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{self.where}: {name} is {value!r}, it must be a whole number of at least 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number, `default` if it is absent or null."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{self.where}: {name} is {value!r}, it must be a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, `default` if it is absent or null."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.where}: {name} is {value!r}, it must be true or false")
        return value

    def choice(self, name: str, choices: dict[str, Any], default: str) -> Any:
        """What `choices` has for a name, that for `default` if it is absent or null."""
        value = self._get(name, default)
        if value not in choices:
            raise ConfigError(f"{self.where}: {name} is {value!r}; known: {', '.join(choices)}")
        return choices[value]

    def require(self, name: str, wanted: Any) -> None:
        """Refuse a model with another value than `wanted`, which is also the default."""
        value = self._get(name, wanted)
        if value != wanted:
            raise ConfigError(f"{self.where}: {name} is {value!r}; only models with {wanted!r} can be read")

    def rotary(self, *, default_base: float = 10000.0) -> tuple[float, float, float]:
        """(base, part of a head that rotates, Llama 3.1's factor or 1), as old and new transformers write them."""
        nested = {**(self.values.get("rope_scaling") or {}), **(self.values.get("rope_parameters") or {})}
        own = HFConfig({**self.values, **nested}, self.where)
        kind = nested.get("rope_type", nested.get("type", "default"))
        factor = 1.0
        if kind == "llama3":
            for name, wanted in _LLAMA3.items():
                own.require(name, wanted)
            factor = own.number("factor")
        elif kind != "default":
            raise ConfigError(f"{self.where}: rotary embeddings of type {kind!r}; known: default, llama3")
        part = own.number("partial_rotary_factor", own.number("rotary_pct", 1.0))
        base = own.number("rope_theta", own.number("rotary_emb_base", default_base))
        return base, part, factor

    def heads(self, hidden_size: int) -> tuple[int, int, int]:
        """(query heads, key heads, width of a head); they must divide as attention needs it."""
        heads = self.integer("num_attention_heads")
        groups = self.integer("num_key_value_heads", heads)
        width = self.integer("head_dim", max(1, hidden_size // heads))
        if heads % groups or ("head_dim" not in self.values and hidden_size % heads):
            raise ConfigError(
                f"{self.where}: num_attention_heads {heads} must divide hidden_size {hidden_size} and be a multiple of "
                f"num_key_value_heads {groups}"
            )
        return heads, groups, width

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigError(f"{self.where} has no {name}")
        return value


def rope_parameters(base: float, part: float = 1.0, factor: float = 1.0) -> dict[str, Any]:
    """Rotary embeddings as transformers 5 reads them, with the base also where older versions look for it."""
    scaled: dict[str, Any] = {"rope_type": "llama3", "factor": factor, **_LLAMA3} if factor != 1 else {}
    nested: dict[str, Any] = {"rope_type": "default", "rope_theta": base} | scaled
    if part != 1:
        nested["partial_rotary_factor"] = part
    old = {"rope_theta": base} | ({"rope_scaling": scaled} if scaled else {})
    return {"rope_parameters": nested} | old
