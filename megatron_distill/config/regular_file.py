"""Pipes and devices in the place of files: to read one may wait for ever, or never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Nothing, if `path` is a regular file, a folder or not there.

    Raises:
        OSError: it is a pipe, a socket or a device, or it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
