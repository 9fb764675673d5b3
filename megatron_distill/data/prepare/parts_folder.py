"""The folder PREFIX.parts: what in it is this program's own, and may therefore be removed.

Nothing else is ever touched: a folder that holds another file is refused before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from megatron_distill.config.error import ConfigError

LOCK = "lock"
"""The first file of the folder and the last; a folder with parts and without it is somebody else's."""
OWNER = "owner"
"""Takes the place of a lock where the file system has none."""
_OWN = re.compile(r"(\d{6,}|merged)\.(bin|idx|json)(\.partial)?", re.ASCII)


def check_is_ours(folder: Path, inputs: Sequence[Path]) -> None:
    """Nothing, if the folder does not exist or holds what this program writes there, and no input.

    Raises:
        ConfigError: it holds something else.
    """
    inside = next((path for path in inputs if folder.resolve() in path.resolve().parents), None)
    if inside is not None:
        raise ConfigError(
            f"--input {inside} lies in {folder}, where this program writes and removes files; move it, or give another "
            "--output-prefix"
        )
    if not folder.is_dir() or folder.is_symlink():
        if folder.exists() or folder.is_symlink():
            raise ConfigError(f"{folder} is not a folder of this program; move it, or give another --output-prefix")
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _is_ours(folder / name)]
    if not foreign and names and LOCK not in names:
        foreign = names
    if foreign:
        raise ConfigError(
            f"{folder} holds {foreign[0]}, which this program did not write there; move it, or give another "
            "--output-prefix"
        )


def own_files(folder: Path) -> list[Path]:
    """Everything in the folder that this program wrote, but for the lock."""
    return [path for path in folder.iterdir() if path.name not in (LOCK, OWNER) and _is_ours(path)]


def remove(paths: Iterable[Path]) -> None:
    """Delete files."""
    for path in list(paths):
        path.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove what no later call can use; the folder too, if nothing else is in it."""
    files = own_files(folder)
    if any(path.suffix == ".json" for path in files):
        remove(path for path in files if path.suffix == ".partial")
        return
    remove(files)
    try:
        (folder / OWNER).unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:  # somebody put a file there meanwhile, or holds the lock on a file system that tells
        return


def _is_ours(path: Path) -> bool:
    """A regular file with a name that this program gives."""
    return (
        (path.name in (LOCK, OWNER) or _OWN.fullmatch(path.name) is not None)
        and path.is_file()
        and not path.is_symlink()
    )
