"""Nested dataclasses to Megatron-style command-line flags, and back.

`tensor_model_parallel_size: int = 1` in a section becomes `--tensor-model-parallel-size`; the string under a field is
its help text. `@flags.txt` reads flags from a file, one or more a line, `#` starts a comment.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import shlex
import sys
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from .arguments import ArgumentParser, expand_files
from .limits import Check, path_problem, reader, word_problem

Config = TypeVar("Config")


def section(config_class: type, *, prefix: str = "") -> Any:
    """A nested config whose flags carry `prefix`: `section(ParallelConfig, prefix="teacher")` gives `--teacher-...`."""
    return dataclasses.field(default_factory=config_class, metadata={"prefix": prefix})


def parse(config_class: type[Config], arguments: list[str] | None = None, *, program: str | None = None) -> Config:
    """The config that `arguments` (default: the command line) describe.

    Raises:
        ConfigError: an unknown flag (with the nearest name), a value of the wrong type, or a failed check.
    """
    parser = flag_parser(config_class, program)
    words = expand_files(sys.argv[1:] if arguments is None else arguments)
    values = parser.parse(words, other_names=getattr(config_class, "OTHER_NAMES", None))
    return _build(config_class, vars(values), prefix="")


def flag_parser(config_class: type, program: str | None = None) -> ArgumentParser:
    """The parser of the flags of a config, each of which checks its value."""
    parser = ArgumentParser(
        prog=program,
        description=inspect.getdoc(config_class),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _declare(parser, config_class, prefix="")
    return parser


def to_flags(config: Any, prefix: str = "") -> list[str]:
    """The flags that give `config` again: every field that differs from its default, one `--name value...` an item."""
    flags: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flags += to_flags(value, _join(prefix, field.metadata["prefix"]))
            continue
        if value == _default(field):
            continue
        name = _join(prefix, field.name).replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif str(value).startswith(("-", "@")):  # alone it would be taken for a flag or a file of flags
            flags.append(f"--{name}={shlex.quote(str(value))}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags.append(" ".join([f"--{name}", *(shlex.quote(str(v)) for v in values)]))
    return flags


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def _declare(parser: argparse.ArgumentParser, config_class: type, prefix: str) -> None:
    title = config_class.__name__.removesuffix("Config").lower()
    title = title if prefix in ("", title) else f"{prefix} {title}"
    group = parser.add_argument_group(title, inspect.getdoc(config_class))
    types_of, help_of = typing.get_type_hints(config_class), field_docs(config_class)
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(types_of[field.name]):
            _declare(parser, typing.cast(type, types_of[field.name]), _join(prefix, field.metadata["prefix"]))
            continue
        options = _options(types_of[field.name], field.metadata.get("check"))
        name, default = _join(prefix, field.name), _default(field)
        if default is dataclasses.MISSING:
            options["required"] = True
        else:
            options["default"] = default
        help_text = help_of.get(field.name, " ").replace("%", "%%")
        group.add_argument("--" + name.replace("_", "-"), dest=name, help=help_text, **options)


def _options(annotation: Any, check: Check | None) -> dict[str, Any]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        (annotation,) = [t for t in inner if t is not type(None)]
        return _options(annotation, check)
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin is Literal:
        return {"choices": inner, "type": type(inner[0])}
    if origin is tuple:
        return _options(inner[0], check) | {"nargs": "+"}
    if annotation in (str, Path):
        return {"type": reader(annotation, check or (path_problem if annotation is Path else word_problem))}
    if annotation in (int, float):
        return {"type": reader(annotation, check)}
    raise TypeError(f"no flag can hold a {annotation}")


def _build(config_class: type[Config], values: dict[str, Any], prefix: str) -> Config:
    types_of = typing.get_type_hints(config_class)
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, config_class)):
        if dataclasses.is_dataclass(types_of[field.name]):
            inner = typing.cast(type, types_of[field.name])
            chosen[field.name] = _build(inner, values, _join(prefix, field.metadata["prefix"]))
        else:
            value = values[_join(prefix, field.name)]
            chosen[field.name] = tuple(value) if isinstance(value, list) else value
    return config_class(**chosen)


@cache
def field_docs(config_class: type) -> dict[str, str]:
    """The string literal under each field, which Python discards and `--help` wants."""
    docs: dict[str, str] = {}
    tree = ast.parse(inspect.cleandoc(inspect.getsource(config_class)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    for above, below in zip(body, body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[typing.cast(ast.Name, above.target).id] = " ".join(str(below.value.value).split())
    return docs


def _join(prefix: str, name: str) -> str:
    return "_".join(part for part in (prefix, name) if part)
