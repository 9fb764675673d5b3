"""Documents out of text files: JSON lines (plain, gzip or Zstandard) and plain text."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from megatron_distill.config.error import ConfigError

from .compressed import Damaged
from .pieces import Piece, read_blocks

KINDS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".txt")


OVER_LINES = "a line must hold one object, which `jq -c '.[]' FILE` makes of an array"
"""Advice for files that are one JSON value."""


class BadLine(ValueError):
    """A line that holds no document; says why, not where."""


class BadText(BadLine):
    """A text file that is no text from a line on."""

    def __init__(self, why: str, line: int) -> None:
        super().__init__(why)
        self.line = line


def expand(patterns: list[str]) -> list[Path]:
    """The files that names and globs mean, globs sorted.

    Raises:
        ConfigError: nothing matches, or a kind of file that cannot be read.
    """
    paths: list[Path] = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns too
        if not found:
            raise ConfigError(f"there is no file {pattern}")
        paths += map(Path, found)
    for path in paths:
        _check_kind(path)
    return paths


def _check_kind(path: Path) -> None:
    if not path.name.endswith(KINDS):
        usual = path.name.lower().replace(".ndjson", ".jsonl")
        advice = f"; it would be read as {usual}" if usual.endswith(KINDS) else ""
        raise ConfigError(f"{path} has none of the endings {', '.join(KINDS)}{advice}")
    if path.exists() and not path.is_file():
        what = "a folder; give the files in it" if path.is_dir() else "a pipe or a device; text is read more than once"
        raise ConfigError(f"{path} is no file but {what}")


def read_documents(path: Path, text_key: str = "text") -> Iterator[str]:
    """Documents of one file: the field `text_key` of each JSON line, or a text file as a whole.

    Raises:
        ConfigError: a line that is not JSON or lacks the field, bytes that are not UTF-8, a truncated compressed file;
            names the file and the line.
    """
    if path.suffix == ".txt":
        try:
            yield whole_text(path)
        except BadText as error:
            raise ConfigError(f"{path}, line {error.line}: {error}") from error
        return
    number = 0
    try:
        for block in read_blocks(Piece.whole(path)):
            for number, line in enumerate(block.lines, block.first_line):  # noqa: B007 - the handlers below name the line
                if not is_blank(line):
                    yield text_of(line, text_key)
    except Damaged as error:
        raise ConfigError(f"{path}, after line {number}: {error}") from error
    except BadLine as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error


def whole_text(path: Path) -> str:
    """A text file with line ends as on Unix, without a byte order mark. BadText if it is not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadText(f"not UTF-8 ({error.reason})", line) from error


def is_blank(line: bytes) -> bool:
    """Whether a line is white space only."""
    return line[:1] != b"{" and not line.strip()


def text_of(line: bytes, text_key: str) -> str:
    """The text of a JSON line. BadLine if there is none."""
    try:
        text = orjson.loads(line)[text_key]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = None
    # What the fast parser refuses is read once more by the one that says why.
    return text if type(text) is str else text_field(row_of(line), text_key, "give another --text-key")


def row_of(line: bytes) -> dict[str, Any]:
    """The object of a JSON line. BadLine if it holds none."""
    try:
        row = json.loads(line.rstrip().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        advice = f"; {OVER_LINES}" if line.strip() in (b"[", b"{", b"[{") else ""
        raise BadLine(f"not JSON at column {error.colno} ({error.msg.removesuffix(' at')}){advice}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise BadLine(f"JSON that Python does not read ({error})") from error
    if not isinstance(row, dict):
        advice = f"; {OVER_LINES}" if isinstance(row, list) else ""
        raise BadLine(f"not a JSON object but {type(row).__name__}{advice}")
    return row


def text_field(row: dict[str, Any], key: str, advice: str) -> str:
    """A field that holds text. BadLine if it does not."""
    if key not in row:
        raise BadLine(f"no {key!r} among its fields {', '.join(row) or '(none)'}; {advice}")
    text = row[key]
    if not isinstance(text, str):
        raise BadLine(f"{key!r} holds no text but {type(text).__name__}; {advice}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can say "\ud800", but no tokenizer takes it
        raise BadLine(f"{key!r} holds half a surrogate pair ({text[error.start]!a})") from error
    return text
