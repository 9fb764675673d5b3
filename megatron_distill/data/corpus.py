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
    number = 0
    try:
        if path.suffix == ".txt":
            yield path.read_text(encoding="utf-8")
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the handler below names the line
                if line.strip():
                    yield _text_of(line, text_key)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, after line {number}: not UTF-8 ({error.reason})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}, after line {number}: the gzip file is damaged or cut off ({error})") from error
    except _BadLine as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error


class _BadLine(ValueError):
    pass


def _text_of(line: str, text_key: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadLine(f"not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
        known = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise _BadLine(f"no text under {text_key!r} (there is {known}); give another --text-key")
    return row[text_key]
