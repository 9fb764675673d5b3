"""Which file in a folder has the items of a task."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from megatron_distill.config.error import ConfigError

from .suites import PAPER

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json")


def items_of(folder: Path, task: str) -> tuple[Path, ...]:
    """The file that a task's items come from: none if it is missing, or if the task does not take them from there."""
    file = file_of(task)
    if file is None:
        return ()
    try:
        path = find_items(folder, file)
    except (ConfigError, OSError, zipfile.BadZipFile):  # which whoever reads it says
        return ()
    return (next((parent for parent in path.parents if parent.suffix == ".zip"), path),)


def file_of(task: str) -> str | None:
    """The name of a task's file without its ending; None for tasks that read no local files."""
    if task in PAPER:
        return f"{task}_validation"
    if re.fullmatch(r"blimp_\w+", task):
        return task.removeprefix("blimp_").removeprefix("supplement_")
    return None


def find_items(folder: Path, file: str) -> Path:
    """The file of that name, or the member of the archive of BLiMP that has it.

    Raises:
        ConfigError: there is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"--data {folder} is no folder")
    for pattern in ("", "*/", "*/*/"):
        for suffix in _SUFFIXES:
            found = sorted(folder.glob(f"{pattern}{file}{suffix}"))
            if found:
                return found[0]
    for archive in sorted([*folder.glob("BLiMP.zip"), *folder.glob("*/BLiMP.zip")]):
        with zipfile.ZipFile(archive) as opened:
            if f"data/{file}.jsonl" in opened.namelist():
                return archive / f"data/{file}.jsonl"
    raise ConfigError(f"neither {folder} nor a folder in it has {file}.jsonl or {file}.jsonl.gz")
