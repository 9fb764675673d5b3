"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from megatron_distill.config.error import ConfigError

_SUFFIX = ".partial"
_LINKS = 40
"""So many symbolic links in a row are a loop, as for the kernel."""


def open_partial(path: Path) -> BinaryIO:
    """A new file next to `path` under its temporary name `partial_path(path)`; what lies there, as a file or a link,
    is of a process that was killed and is removed, never written to.

    Raises:
        ConfigError: it cannot be written there.
    """
    partial = partial_path(path)
    try:
        partial.unlink(missing_ok=True)
        return _new(partial)
    except OSError as error:
        raise _cannot(path, error) from error


def partial_path(path: Path) -> Path:
    """The temporary name of `path`."""
    return path.with_name(path.name + _SUFFIX)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name when the block ends, and is removed if it ends with an error.

    It takes the place of nothing, of a regular file that may be written (whose permissions it keeps) or of a link to
    one, which is not followed. Anything else, such as a device, a pipe or the program's own output, is written
    straight into and stays what it is.

    Raises:
        ConfigError: it cannot be written there: no such folder, a directory, a file that is read-only.
    """
    try:
        straight = _straight(path)
    except OSError as error:
        raise _cannot(path, error) from error
    if straight is not None:
        with straight:
            yield straight
        return
    with _renamed(path) as file:
        yield file


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or a text in UTF-8, as `written_whole` does; what is no UTF-8 in the name of a file is escaped."""
    with written_whole(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))


def check_writable(path: Path) -> None:
    """Find out before any work whether `written_whole` can write there; leaves everything as it is.

    Raises:
        ConfigError: it cannot.
    """
    try:
        if _descriptor(path) is not None or not _is_replaceable(path):
            return
        partial = _unique(path)
        _new(partial).close()
        partial.unlink()
    except OSError as error:
        raise _cannot(path, error) from error


@contextmanager
def _renamed(path: Path) -> Iterator[BinaryIO]:
    partial = _unique(path)
    try:
        file = _new(partial)
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        with file:
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):  # a file system without permissions
                    os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _straight(path: Path) -> BinaryIO | None:
    """What is to be written straight into, opened; None if a new file is to take the name."""
    own = _descriptor(path)
    if own is not None:
        return os.fdopen(os.dup(own), "wb")  # a name such as /dev/stdout would be opened at its beginning
    if _is_replaceable(path):
        return None
    return os.fdopen(os.open(path, os.O_WRONLY), "wb")


def _is_replaceable(path: Path) -> bool:
    """Whether nothing, or a regular file that may be written, is there; OSError for a directory or a read-only file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "it is a directory")
    if not os.access(path, os.W_OK):
        raise PermissionError(0, "it is read-only")
    return stat.S_ISREG(mode)


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that a name such as /dev/stdout stands for."""
    own = Path("/proc/self/fd").resolve()
    for _ in range(_LINKS):
        if path.name.isdigit() and path.parent.resolve() == own:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def _unique(path: Path) -> Path:
    """A temporary name that no other writer of `path` has."""
    return path.with_name(f"{path.name[:50]}.{secrets.token_hex(4)}{_SUFFIX}")


def _new(path: Path) -> BinaryIO:
    """A file that was not there before; a link at its name is an error and is not followed."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb")


def _cannot(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror}; give another file, in a folder that exists")
