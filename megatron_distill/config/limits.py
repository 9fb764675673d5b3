"""What a flag's value may be: checks that run where the text of the command line becomes a value.

A field of a config says it beside its default: `lr: float = limited(3e-4, least=0, most=1000)`,
`save: str = location()`. A program that declares its arguments one by one says it as their type:
`add_argument("--limit", type=whole_number(least=1))`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")
Check = Callable[[Any], str]
"""From a value to what is wrong with it, a phrase that goes behind it in a sentence; "" if nothing is."""

RANKS = 1 << 20
"""Most ranks of a job."""
COUNT = 10**9
"""Most steps, samples of an evaluation, and other things that are counted one by one."""
TOKEN_IDS = 1 << 24
"""Most tokens of a vocabulary."""
LONGEST = 1 << 24
"""Most tokens of a sequence."""
_NAME_BYTES, _PATH_BYTES = 255, 4095


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of numbers; `above` and `below` are not part of it, `least` and `most` are."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, value: float) -> str:
        """What is wrong with `value`, "" if it lies in the interval."""
        bounds = (
            ("at least", self.least, operator.ge),
            ("above", self.above, operator.gt),
            ("at most", self.most, operator.le),
            ("below", self.below, operator.lt),
        )
        given = [(words, bound, holds) for words, bound, holds in bounds if bound is not None]
        if all(holds(value, bound) for _, bound, holds in given):
            return ""
        return "must be " + " and ".join(f"{words} {_number(bound)}" for words, bound, _ in given)


def limited(
    default: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a config that holds a number of an interval."""
    return checked(default, Range(least=least, most=most, above=above, below=below))


def location(default: Any = dataclasses.MISSING) -> Any:
    """A field of a config that holds a path, or several."""
    return checked(default, path_problem)


def checked(default: Any, check: Check) -> Any:
    """A field of a config whose value must pass `check`."""
    return dataclasses.field(default=default, metadata={"check": check})


def whole_number(
    *, least: float | None = None, most: float = COUNT, above: float | None = None, below: float | None = None
) -> Callable[[str], int]:
    """The type of an argument that is a whole number of an interval."""
    return reader(int, Range(least=least, most=most, above=above, below=below))


def number(
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Callable[[str], float]:
    """The type of an argument that is a finite number of an interval."""
    return reader(float, Range(least=least, most=most, above=above, below=below))


def path(text: str) -> Path:
    """The type of an argument that names a file or a folder."""
    return reader(Path, path_problem)(text)


def path_text(text: str) -> str:
    """The same, for those that are kept as they were written: prefixes and globs."""
    return reader(str, path_problem)(text)


def word(text: str) -> str:
    """The type of an argument that is a name or another text that must not be empty."""
    return reader(str, word_problem)(text)


def free_text(text: str) -> str:
    """The type of an argument that is any text, an empty one too."""
    return reader(str, text_problem)(text)


def reader(convert: Callable[[str], Value], check: Check | None) -> Callable[[str], Value]:
    """The function that makes a checked value of a text of the command line.

    It raises argparse's error for a value that cannot be: argparse puts the flag before it.
    """
    is_text = convert in (str, Path)

    def read(text: str) -> Value:
        if is_text and check is not None and (problem := check(text)):
            raise argparse.ArgumentTypeError(f"{shown(text)} {problem}" if text else problem)
        try:
            value = convert(text)
        except (ValueError, OverflowError) as error:
            kind = {int: "a whole number", float: "a number"}.get(convert, "valid")  # type: ignore[call-overload]
            raise argparse.ArgumentTypeError(f"{shown(text)} is not {kind}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a finite number")
        if not is_text and check is not None and (problem := check(value)):
            raise argparse.ArgumentTypeError(f"{text.strip()} {problem}")
        return value

    return read


def text_problem(text: str) -> str:
    """What no argument may hold: NUL, and bytes that are not UTF-8."""
    if "\0" in text:
        return "holds a NUL character; leave it out"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8; write it in UTF-8"
    return ""


def word_problem(text: str) -> str:
    """What is wrong with a text that must not be empty."""
    return text_problem(text) if text else "is empty; is a variable unset?"


def path_problem(text: str) -> str:
    """What is wrong with a path: empty, an address of a store, a ~ that no shell replaced, or too long a name."""
    if problem := word_problem(text):
        return problem
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        return "is an address; give a path of this machine, such as a folder where the storage is mounted"
    if text.startswith("~"):
        return "starts with ~, which only a shell replaces; write the whole path, or ./~ if that is its name"
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > _NAME_BYTES:
        return f"has a name of {longest} bytes; file systems allow {_NAME_BYTES}"
    if len(text.encode()) > _PATH_BYTES:
        return f"has {len(text.encode())} bytes; a path may have {_PATH_BYTES}"
    return ""


def shown(text: str) -> str:
    """A text as an error quotes it: in quotation marks, and not longer than a line."""
    return repr(text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and abs(value) < 1 << 53 else f"{value:g}"
