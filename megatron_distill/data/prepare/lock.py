"""One writer at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_distill.config.error import ConfigError

PATIENCE_S = 2.0
"""Workers of a run that was killed a moment ago need a moment to notice."""


@contextmanager
def only_writer(folder: Path) -> Iterator[int]:
    """Makes `folder` and holds it for this process and those that inherit the descriptor it gives.

    Raises:
        ConfigError: another process holds it, or it cannot be made.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (descriptor := _try_to_hold(folder)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(f"another process is writing {folder}; wait for it, or give another --output-prefix")
        time.sleep(0.02)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_to_hold(folder: Path) -> int | None:
    name = folder / "lock"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; give a folder that exists") from error
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None  # a writer has just finished and taken the folder away
    except OSError as error:
        raise ConfigError(f"{name} cannot be written: {error.strerror}; give another --output-prefix") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Or has taken it away between our opening and our locking the file in it.
        if os.path.samestat(os.fstat(descriptor), name.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
