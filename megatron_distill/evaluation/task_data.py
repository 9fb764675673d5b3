"""Items of the tasks: from the Hugging Face hub, or from JSON lines in a folder."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import datasets

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.compressed import Damaged
from megatron_distill.data.prepare.corpus import BadLine, is_blank, row_of
from megatron_distill.data.prepare.pieces import Piece, read_blocks

from .items import find_items


def load(
    *, file: str, hub: str = "", config: str | None = None, split: str = "validation", data: str = "", **ignored: Any
) -> dict[str, datasets.Dataset]:
    """What a task file's `custom_dataset` gives the harness: the items under the name "validation".

    `data` is the folder with `file`.jsonl (or .jsonl.gz), directly or one folder down; without it they come from the
    dataset `hub` on the hub.

    Raises:
        ConfigError: there are none, a line is not what it should be, or the hub cannot be reached.
    """
    if data:
        path = find_items(Path(data), file)
        items = _read(path)
        if not items:
            raise ConfigError(f"{path} holds no item")
        return {"validation": datasets.Dataset.from_list(items)}
    if not hub:
        raise ConfigError(f"{file} is on no hub; give the folder of its files with --data")
    try:
        found = datasets.load_dataset(hub, config, split=split)
    except Exception as error:  # whatever network, cache and dataset can raise
        said = str(error).strip().splitlines() or [repr(error)]
        raise ConfigError(
            f"{hub} could not be read from the hub ({said[0]}); give local files with --data DIR"
        ) from error
    if not len(found):
        raise ConfigError(f"the split {split} of {hub} is empty")
    return {"validation": found}


def _read(path: Path) -> list[dict[str, Any]]:
    archive = next((parent for parent in path.parents if parent.suffix == ".zip"), None)
    number = 0
    try:
        if archive:
            with zipfile.ZipFile(archive) as opened:
                lines = opened.read(str(path.relative_to(archive))).splitlines()
            return [row_of(line) for number, line in enumerate(lines, 1) if not is_blank(line)]  # noqa: B007
        items = []
        for block in read_blocks(Piece.whole(path)):
            for number, line in enumerate(block.lines, block.first_line):  # noqa: B007 - named below
                if not is_blank(line):
                    items.append(row_of(line))
        return items
    except (Damaged, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged after line {number}: {error}") from error
    except BadLine as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error
