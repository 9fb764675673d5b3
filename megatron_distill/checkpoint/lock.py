"""One run at a time writes to a run folder."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_distill.config.error import ConfigError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Make the run folder and keep other runs out of it until the block, or this process, ends.

    Raises:
        ConfigError: another run is writing there, or the folder cannot be written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a")
    except OSError as error:
        raise ConfigError(f"--save {run} cannot be written to: {error.strerror}") from error
    with file:
        try:
            # Not flock: processes that megatron-core forks to write a checkpoint would keep it when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(f"another run is writing to {run}; wait for its end or give another --save") from error
        except OSError as error:
            print(f"{run} cannot be locked ({error.strerror}): see that no other run writes there", file=sys.stderr)
        yield
