"""The errors that end a program with one sentence instead of a traceback."""

from __future__ import annotations

import errno
import os


class ConfigError(ValueError):
    """A wrong input: one sentence that says what was given, what is allowed and what to do. Exit code 2."""


class OutsideError(RuntimeError):
    """Something outside the program failed, such as a peer: one sentence. Exit code 1."""


_NOT_FULL = tuple(
    map(os.strerror, (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EROFS))
)


def disk_hint(failure: str) -> str:
    """A question to put behind a failure to write: whether the disk is full, unless the failure says that it is not."""
    other = any(words in failure for words in (*_NOT_FULL, "it is a directory", "it is read-only"))
    return "" if other else "; is the disk full?"
