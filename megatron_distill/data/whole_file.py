"""Files that appear complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from megatron_distill.config.error import ConfigError


def open_partial(path: Path) -> BinaryIO:
    """A new file next to `path` under a temporary name.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        return partial_path(path).open("wb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; give a folder that exists") from error


def partial_path(path: Path) -> Path:
    """The temporary name of `path`."""
    return path.with_name(path.name + ".partial")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name when the block ends, and is removed if it ends with an error."""
    file = open_partial(path)
    try:
        with file:
            yield file
        partial_path(path).replace(path)
    finally:
        partial_path(path).unlink(missing_ok=True)
