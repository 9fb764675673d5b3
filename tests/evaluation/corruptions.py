"""Ways in which a file of JSON is damaged, none of which may be taken for the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _content(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def corrupt(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return corrupt


def _first_model(value: object) -> Callable[[Path], None]:
    return _content(lambda content: content["models"].update({next(iter(content["models"])): value}))


UNREADABLE: dict[str, Callable[[Path], None]] = {
    "one byte less": _bytes(lambda data: data.rstrip()[:-1]),
    "half": _bytes(lambda data: data[: len(data) // 2]),
    "empty": _bytes(lambda data: b""),
    "zeros": _bytes(lambda data: bytes(len(data))),
    "not utf-8": _bytes(lambda data: data.replace(b'"', b"\xff", 1)),
    "twice": _bytes(lambda data: data + data),
    "nested": _bytes(lambda data: b"[" * 100_000 + b"]" * 100_000),
    "nested in a key": _bytes(lambda data: b'{"format": 2, "models": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001),
    "a list": _bytes(lambda data: b"[" + data + b"]"),
    "null": _bytes(lambda data: b"null"),
    "a long number": _bytes(lambda data: b"1" * 10_000),
}
"""Of any file of JSON that holds an object."""

REWRITTEN: dict[str, Callable[[Path], None]] = {
    "byte order mark": _bytes(lambda data: b"\xef\xbb\xbf" + data),
    "utf-16": _bytes(lambda data: data.decode().encode("utf-16")),
    "line ends": _bytes(lambda data: data.replace(b"\n", b"\r\n")),
}
"""What an editor does to a file: nothing of it is lost."""

CORRUPTIONS: dict[str, Callable[[Path], None]] = UNREADABLE | {
    "no format": _content(lambda content: content.pop("format")),
    "no models": _content(lambda content: content.pop("models")),
    "format is a text": _content(lambda content: content.update(format="2")),
    "models is a list": _content(lambda content: content.update(models=[])),
    "a null entry": _first_model(None),
    "an entry of numbers": _first_model(7),
    "null scores": _first_model({"scores": None}),
    "a null score": _first_model({"scores": {"piqa": None}}),
    "a score without a value": _first_model({"scores": {"piqa": {"metric": "acc"}}}),
    "a score of text": _first_model({"scores": {"piqa": {"metric": "acc", "value": "high"}}}),
}
"""Of a file of scores."""
