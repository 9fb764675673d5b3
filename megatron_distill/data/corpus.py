"""Documents out of text files: JSON lines (plain or gzip) and plain text."""

from __future__ import annotations

import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from megatron_distill.config.error import ConfigError

KINDS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".txt")


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
        if not path.name.endswith(KINDS):
            raise ConfigError(f"{path} has none of the endings {', '.join(KINDS)}")
    return paths


def read_documents(path: Path, text_key: str = "text") -> Iterator[str]:
    """Documents of one file: the field `text_key` of each JSON line, or a text file as a whole.

    Raises:
        ConfigError: a line that is not JSON or lacks the field, bytes that are not UTF-8, a truncated gzip file;
            names the file and the line.
    """
    if path.suffix == ".txt":
        yield _whole_text(path)
        return
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the handlers below name the line
                if line.strip():
                    yield _text_of(line, text_key)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}, after line {number}: the gzip file is damaged or cut off ({error})") from error
    except _BadLine as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error


class _BadLine(ValueError):
    pass


def _whole_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error


def _text_of(line: bytes, text_key: str) -> str:
    try:
        row = json.loads(line.rstrip().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadLine(f"not UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise _BadLine(f"not JSON at column {error.colno} ({error.msg.removesuffix(' at')})") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise _BadLine(f"JSON that Python does not read ({error})") from error
    if not isinstance(row, dict):
        raise _BadLine(f"not a JSON object but {type(row).__name__}")
    if text_key not in row:
        raise _BadLine(f"no {text_key!r} among its fields {', '.join(row) or '(none)'}; give another --text-key")
    text = row[text_key]
    if not isinstance(text, str):
        raise _BadLine(f"{text_key!r} holds no text but {type(text).__name__}; give another --text-key")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can say "\ud800", but no tokenizer takes it
        raise _BadLine(f"{text_key!r} holds half a surrogate pair ({text[error.start]!a})") from error
    return text
