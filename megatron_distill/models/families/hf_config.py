"""config.json of a Hugging Face folder, read with its types checked; it is data and nothing in it is executed.

A missing key means what it means to transformers. A null is refused unless transformers accepts it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

_LLAMA3 = {"low_freq_factor": 1, "high_freq_factor": 4}
_LLAMA3_POSITIONS = 8192
"""The numbers of Llama 3.1 to 3.3, which megatron-core's rotary table has built in."""


MOST = 1 << 24
"""No width, vocabulary or context is larger."""


class HFConfig:
    """The values of a config.json. Every method raises ConfigError, naming the file, for a value it cannot accept."""

    def __init__(self, values: dict[str, Any], where: str, tensors: int | None = None) -> None:
        self.values, self.where, self.tensors = values, where, tensors
        """`tensors`: how many the folder holds, if that is known; there are fewer layers than that."""

    @classmethod
    def read(cls, folder: Path, tensors: int | None = None) -> HFConfig:
        """The configuration of a model's folder."""
        path = folder / "config.json"
        try:
            values = read_json(path, dict[str, Any])
        except FileNotFoundError as error:
            raise ConfigError(f"{folder} is not a Hugging Face model: it has no config.json") from error
        if not isinstance(values.get("model_type"), str):
            raise ConfigError(f"{path} describes no model: it has no model_type")
        return cls(values, str(path), tensors)

    def with_defaults(self, defaults: dict[str, Any]) -> HFConfig:
        """The same with values for keys that are missing."""
        return HFConfig(defaults | self.values, self.where, self.tensors)

    def integer(self, name: str, default: int | None = None, *, nullable: bool = False) -> int:
        """A whole number of 1 to `MOST`, `default` if it is absent, or null where that is allowed."""
        value = self._get(name, default, nullable)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}, it must be a whole number of 1 to {MOST:,}")
        return value

    def layers(self, name: str, default: int | None = None) -> int:
        """The number of layers, which is refused where the folder has fewer tensors."""
        count = self.integer(name, default)
        if self.tensors is not None and count > self.tensors:
            raise ConfigError(f"{self.where}: {name} is {count}, but the folder holds only {self.tensors} tensors")
        return count

    def number(self, name: str, default: float | None = None, *, most: float = 1e30) -> float:
        """A positive number of at most `most`, `default` if it is absent."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}, it must be above 0 and at most {most:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, `default` if it is absent."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}, it must be true or false")
        return value

    def choice(self, name: str, choices: dict[str, Any], default: str) -> Any:
        """What `choices` has for a name, that for `default` if it is absent."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}; known: {', '.join(choices)}")
        return choices[value]

    def require(self, name: str, wanted: Any, *, nullable: bool = False) -> None:
        """Refuse a model with another value than `wanted`, which is also the default."""
        value = self._get(name, wanted, nullable)
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}; only models with {wanted!r} can be read")

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, empty if it is absent or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise ConfigError(f"{self.where}: {name} is {_shown(value)}, it must be an object")
        return value or {}

    def rotary(
        self, longest: int, *, base: tuple[str, float] = ("rope_theta", 1e4), part: tuple[str, float] | None = None
    ) -> tuple[float, float, float]:
        """(base, part of a head that rotates, Llama 3.1's factor or 1), as old and new transformers write them.

        `longest` is max_position_embeddings. `base` and `part` are what the family calls these two outside of
        rope_parameters, with their defaults.
        """
        old = self.mapping("rope_scaling")
        name = "rope_scaling" if old else "rope_parameters"  # as transformers prefers them
        given = HFConfig(old or self.mapping(name), f"{self.where}: {name}")
        if any(isinstance(value, dict) for value in given.values.values()):
            raise ConfigError(f"{given.where} differs from layer to layer; one for all layers is needed")
        kind = given.values.get("rope_type", given.values.get("type", "default"))
        factor = 1.0
        if kind == "llama3":
            outside = self.values.get("original_max_position_embeddings")
            original = given.integer("original_max_position_embeddings", longest) if outside is None else outside
            for key, value, wanted in (
                *((key, given.number(key), wanted) for key, wanted in _LLAMA3.items()),
                ("original_max_position_embeddings", original, _LLAMA3_POSITIONS),
            ):
                if value != wanted:
                    raise ConfigError(f"{given.where}: {key} is {_shown(value)}; only models with {wanted} can be read")
            factor = given.number("factor")
        elif kind != "default":
            raise ConfigError(f"{given.where}: rotary embeddings of type {kind!r}; known: default, llama3")
        own_part, own_base = part or ("partial_rotary_factor", 1.0), base
        turned = given.number("partial_rotary_factor", self.number(*own_part, most=1), most=1)
        return given.number("rope_theta", self.number(*own_base)), turned, factor

    def heads(self, hidden_size: int) -> tuple[int, int, int]:
        """(query heads, key heads, width of a head); they must divide as attention needs it."""
        heads = self.integer("num_attention_heads")
        groups = self.integer("num_key_value_heads", heads, nullable=True)
        width = self.integer("head_dim", max(1, hidden_size // heads), nullable=True)
        if heads % groups or (self.values.get("head_dim") is None and hidden_size % heads):
            raise ConfigError(
                f"{self.where}: num_attention_heads {heads} must divide hidden_size {hidden_size} and be a multiple of "
                f"num_key_value_heads {groups}"
            )
        return heads, groups, width

    def plain_heads(self, hidden_size: int, name: str = "num_attention_heads", default: int | None = None) -> int:
        """Heads of a family in which each has keys of its own, and all together the model's width."""
        heads = self.integer(name, default)
        if hidden_size % heads:
            raise ConfigError(f"{self.where}: {name} {heads} must divide the width {hidden_size}")
        return heads

    def _get(self, name: str, default: Any, nullable: bool = False) -> Any:
        value = self.values.get(name)
        if value is None and (nullable or name not in self.values):
            value = default
            if value is None:
                raise ConfigError(f"{self.where} has no {name}")
        return value


def rope_parameters(base: float, part: float = 1.0, factor: float = 1.0) -> dict[str, Any]:
    """Rotary embeddings as transformers 5 reads them, with the base also where older versions look for it."""
    llama3 = {**_LLAMA3, "original_max_position_embeddings": _LLAMA3_POSITIONS}
    scaled: dict[str, Any] = {"rope_type": "llama3", "factor": factor, **llama3} if factor != 1 else {}
    nested: dict[str, Any] = {"rope_type": "default", "rope_theta": base} | scaled
    if part != 1:
        nested["partial_rotary_factor"] = part
    old = {"rope_theta": base} | ({"rope_scaling": scaled} if scaled else {})
    return {"rope_parameters": nested} | old


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r:.40}"
