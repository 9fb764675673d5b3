"""Ways in which a JSON file, or a line of a file of JSON lines, is another than the reader expects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

DEEP = 100_000
"""Brackets: more than any recursive reader follows."""

WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda content: b"null",
    "a list": lambda content: b"[]",
    "an empty object": lambda content: b"{}",
    "a text": lambda content: b'"text"',
    "a number": lambda content: b"-1e999",
    "deep brackets": lambda content: b"[" * DEEP + b"]" * DEEP,
    "open brackets": lambda content: b'{"a":' * DEEP,
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "not UTF-8": lambda content: content.replace(b'": "', b'": "\xff\xfe', 1),
    "a key twice": lambda content: content.replace(b"{", b'{"format": 99, "format": 99, ', 1),
}
"""Of the file."""

_MISSING = object()
OF_A_KEY: dict[str, Callable[[Any], Any]] = {
    "key missing": lambda value: _MISSING,
    "value null": lambda value: None,
    "value of another type": lambda value: [7] if isinstance(value, str) else "text",
    "value huge": lambda value: 10**30,
    "value negative": lambda value: -5,
    "value NaN": lambda value: float("nan"),
    "value an object": lambda value: {"a": {"b": [value]}},
}
"""Of the value at a key."""


def changed(content: bytes, kind: str, path: str) -> bytes:
    """The file's content with that change."""
    if kind in WHOLE:
        return WHOLE[kind](content)
    head, line = _last_line(content)
    return head + json.dumps(_with(json.loads(line), path.split("/"), OF_A_KEY[kind])).encode()


def key_paths(content: bytes) -> list[str]:
    """Keys of the document, nested ones with slashes: all of the first level, then of the second, ..."""
    return sorted(_paths(json.loads(_last_line(content)[1])), key=lambda path: path.count("/"))


def is_readable(content: bytes) -> bool:
    """Whether this is JSON, or lines of it of which at most the last is not whole."""
    try:
        json.loads(content)
        return True
    except (ValueError, RecursionError):
        lines = content.split(b"\n")
    return len(lines) > 2 and all(map(_parses, lines[:-1]))


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _last_line(content: bytes) -> tuple[bytes, bytes]:
    """("", everything) of one document; of lines all but the last, and the last."""
    lines = content.rstrip(b"\n").split(b"\n")
    if len(lines) > 1 and all(map(_parses, lines)):
        return b"\n".join(lines[:-1]) + b"\n", lines[-1]
    return b"", content


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, list) and value:
        value = {"0": value[0]}
    if isinstance(value, dict):
        for key, inner in value.items():
            if "/" not in key:
                yield prefix + key
                yield from _paths(inner, f"{prefix}{key}/")


def _with(value: Any, path: list[str], change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        first = _with(value[0], path[1:], change) if path[1:] else change(value[0])
        return [item for item in (first, *value[1:]) if item is not _MISSING]
    key, rest = path[0], path[1:]
    new = _with(value[key], rest, change) if rest else change(value[key])
    changed = {k: new if k == key else v for k, v in value.items()}
    return {k: v for k, v in changed.items() if v is not _MISSING}
