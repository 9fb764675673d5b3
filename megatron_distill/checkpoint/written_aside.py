"""Folders that appear complete or not at all: written beside their place, renamed when they are whole and checked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_distill.config.error import ConfigError

from .manifest import NAME


@contextmanager
def written_aside(
    out: Path, *, may_replace: Callable[[Path], bool] | None = None, replaced: Callable[[str], bool] = lambda name: True
) -> Iterator[Path]:
    """A new folder to write into, which becomes `out` when the block ends and is removed if it ends with an error.

    It takes the place of nothing, of an empty folder, or of one that `may_replace`. Of that one, entries that are not
    `replaced` are kept.

    Raises:
        ConfigError: something else is there, or it is a run's.
    """
    target = Path(os.path.realpath(out))
    old = _check(out, target, may_replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    partial, aside = (target.with_name(f".{target.name}.{what}_{mark}") for what in ("partial", "old"))
    try:
        partial.mkdir()  # which no link that lies there can stand for
        yield partial
        if old:
            target.rename(aside)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if old:
        for entry in [entry for entry in aside.iterdir() if not replaced(entry.name)]:
            entry.rename(target / entry.name)
        shutil.rmtree(aside)


def _check(out: Path, target: Path, may_replace: Callable[[Path], bool] | None) -> bool:
    """Whether there is a folder to replace."""
    if any((target / name).exists() for name in ("latest", "checkpoints", NAME)) or any(
        folder.name in ("checkpoints", "tokenizer") and (folder.parent / "latest").exists()
        for folder in (target, *target.parents)
    ):
        raise ConfigError(f"{out} is the folder of a run or of its checkpoints; give another one")
    if not target.exists():
        return False
    if target.is_dir() and not any(target.iterdir()):
        return False
    if target.is_dir() and may_replace is not None and may_replace(target):
        return True
    kind = "a file" if not target.is_dir() else "not an export of this program" if may_replace else "not empty"
    raise ConfigError(f"{out} exists already and is {kind}; give a folder that does not exist")
