"""One writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import parse_json

from .parts_folder import LOCK, OWNER

PATIENCE_S = 2.0
"""A run that has just finished needs a moment to take its folder away."""
KILLED_PATIENCE_S = 120.0
"""Workers of a run that was killed need longer to notice: one that still imports its libraries holds the lock."""
NOT_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What flock() says on file systems without it, such as Lustre mounted without `-o flock`."""


@dataclass(frozen=True)
class _Owner:
    """Who holds the lock."""

    host: str
    pid: int

    @classmethod
    def of_this_process(cls) -> _Owner:
        """Ourselves."""
        return cls(socket.gethostname(), os.getpid())

    def to_json(self) -> bytes:
        """For the file."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_dead(self) -> bool:
        """Whether it surely is: a process of this machine that no longer exists."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


@contextmanager
def only_writer(folder: Path) -> Iterator[int]:
    """Makes `folder` and holds it for this process and those that inherit the descriptor it gives.

    Raises:
        ConfigError: another process holds it, or it cannot be made.
    """
    begun, told = time.monotonic(), False
    while (descriptor := _try_to_hold(folder)) is None:
        waited, owner = time.monotonic() - begun, _owner_of(folder)
        was_killed = owner is not None and owner.is_dead
        if waited > (KILLED_PATIENCE_S if was_killed else PATIENCE_S):
            raise ConfigError(_held(folder, owner))
        if was_killed and not told and waited > PATIENCE_S:
            print(f"waiting for the workers of a run that was killed to release {folder}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.02)
    try:
        yield descriptor
    finally:
        if _is_mine(folder / OWNER):
            (folder / OWNER).unlink(missing_ok=True)
        os.close(descriptor)


def _held(folder: Path, owner: _Owner | None) -> str:
    who = "another process" if owner is None else f"process {owner.pid} of {owner.host}"
    known = f"; if that process no longer runs, remove {folder / OWNER}" if (folder / OWNER).exists() else ""
    return f"{who} is writing {folder}; wait for it, or give another --output-prefix{known}"


def _try_to_hold(folder: Path) -> int | None:
    name = folder / LOCK
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
        if _lock(descriptor, name):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _Owner.of_this_process().to_json(), 0)
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _lock(descriptor: int, name: Path) -> bool:
    """Whether the file is locked now, and still has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise ConfigError(f"{name} cannot be locked: {error.strerror}; give another --output-prefix") from error
        return _lock_by_name(name.with_name(OWNER))
    try:
        # A writer may have taken it away between our opening and our locking it.
        return os.path.samestat(os.fstat(descriptor), name.stat())
    except FileNotFoundError:
        return False


def _lock_by_name(path: Path) -> bool:
    """Hold the folder by a file that only one process can create; that of a dead process of this machine is removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        owner = _read_owner(path)
        if owner is not None and owner.is_dead:
            path.unlink(missing_ok=True)
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(_Owner.of_this_process().to_json())
    print(
        f"{path.parent} is on a file system without flock(); {path} keeps other runs out", file=sys.stderr, flush=True
    )
    return True


def _owner_of(folder: Path) -> _Owner | None:
    named = folder / OWNER
    return _read_owner(named if named.exists() else folder / LOCK)


def _read_owner(path: Path) -> _Owner | None:
    """Who is named in a file, None if nobody is."""
    try:
        return parse_json(path.read_bytes(), _Owner, path)
    except (ConfigError, OSError):
        return None


def _is_mine(path: Path) -> bool:
    return _read_owner(path) == _Owner.of_this_process()
