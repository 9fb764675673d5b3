"""Families by name: a file in this folder registers itself, nothing else changes."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape

from .hf_config import HFConfig
from .rules import Rule

_FAMILIES: dict[str, Family] = {}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model is built, and how it is written in a Hugging Face folder."""

    name: str
    """`ModelShape.family`."""
    model_type: str
    """`model_type` in config.json."""
    architecture: str
    """The class in transformers."""
    layer: type
    """The megatron-core layer."""
    prefix: str
    """What begins the names of the base model's tensors; older folders leave it out."""
    read_config: Callable[[HFConfig], ModelShape]
    """The shape that a config.json describes; raises ConfigError for what the layer cannot express."""
    write_config: Callable[[ModelShape, tuple[int, ...]], dict[str, Any]]
    """config.json of a shape with these of its layers, but for what all families have in common; raises ConfigError if
    there is none."""
    rules: Callable[[ModelShape, tuple[int, ...]], list[Rule]]
    """Every tensor of ours, for a model made of the given original layers, and what it is in a Hugging Face folder."""
    ignored: tuple[str, ...] = ()
    """Ends of names of tensors that hold nothing a model learns."""
    code: str = ""
    """The package whose files go with an exported folder, for a model that transformers has no class for."""
    exported_as: Callable[[ModelShape], str] | None = None
    """The name of the family that writes a shape of this one, where that is another."""


def register(family: Family) -> Family:
    """Make a family known under its name."""
    _FAMILIES[family.name] = family
    return family


def all_families() -> dict[str, Family]:
    """Every registered family by name."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return dict(sorted(_FAMILIES.items()))


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none.
    """
    families = all_families()
    if name not in families:
        raise ConfigError(f"the model family {name} is not known; there are {', '.join(families)}")
    return families[name]


def find_exported(shape: ModelShape) -> Family:
    """The family as which a model is written in a Hugging Face folder."""
    family = find_family(shape.family)
    return find_family(family.exported_as(shape)) if family.exported_as else family


def find_model_type(model_type: str, where: str) -> Family:
    """The family of a Hugging Face `model_type`.

    Raises:
        ConfigError: no family reads it; `where` says whose it is.
    """
    known = {family.model_type: family for family in all_families().values()}
    if model_type not in known:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        # Of a name that transformers knows, another architecture is not what was meant.
        near = [] if model_type in CONFIG_MAPPING_NAMES else difflib.get_close_matches(model_type, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{where} has model_type {model_type}, which is not known; {hint}known: {', '.join(known)}")
    return known[model_type]
