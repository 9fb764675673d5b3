"""JSON that the program reads: every file through one reader that knows what must be in it.

Whatever is wrong with a file (not UTF-8, not JSON, nested without end, a missing key, a value of another type) becomes
one sentence that names the file. Nothing is changed: the caller decides whether to refuse the file or to set it aside
with `set_aside`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .error import ConfigError
from .regular_file import check_regular

Kind = TypeVar("Kind")


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """The content of a JSON file as a value of `kind`: a dataclass, `dict[str, float]`, ...; unknown keys are ignored.

    Raises:
        FileNotFoundError: there is no such file; what that means is for the caller to say.
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        check_regular(path)
        text = path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ConfigError(
                f"{path} cannot be read: it is a link to {path.readlink()}, which is not there"
            ) from error
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return parse_json(text, kind, path)


def parse_json(text: bytes | str, kind: type[Kind], where: object) -> Kind:
    """A JSON text as a value of `kind`; `where` names it in an error.

    Raises:
        ConfigError: it is something else.
    """
    try:
        value: Any = json.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{where} is damaged: its brackets are nested too deep") from error
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of thousands of digits
        raise ConfigError(f"{where} is damaged: it is not JSON ({error})") from error
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where} is damaged: {str(error)[:1].lower()}{str(error)[1:]}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that nothing of it is lost: `NAME.damaged`, or the first free `NAME.damaged_2`, ..."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = path.with_name(f"{path.name}.damaged_{number}")
    path.rename(aside)
    return aside
