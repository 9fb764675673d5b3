"""The tokenizer of a run, kept beside its checkpoints, so that a run can be moved and still be exported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from megatron_distill.data.tokenizer import tokenizer_files

from .manifest import Manifest

FOLDER = "tokenizer"
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"),
)
"""What a tokenizer may consist of; none of it is code."""


def keep_tokenizer(source: str | None, run: Path) -> str | None:
    """Copy the tokenizer at `source`, a file or a folder, into the run; returns where it is, relative to the run.

    What is there already stays as it is.
    """
    if source is None:
        return None
    path = Path(source)
    kept, files = Path(FOLDER), set(tokenizer_files(path))
    if path.is_dir():
        files |= {path / name for name in FILES if (path / name).is_file()}
    else:
        kept /= path.name
    for file in files:
        _copy(file, run / FOLDER / file.name)
    return kept.as_posix()


def find_tokenizer(checkpoint: Path, manifest: Manifest) -> str | None:
    """The path of a checkpoint's tokenizer; checkpoints of before name one that lies elsewhere."""
    if manifest.tokenizer is None:
        return None
    return str(checkpoint.absolute().parent.parent / manifest.tokenizer)  # which an absolute one replaces


def _copy(file: Path, out: Path) -> None:
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial.{os.getpid()}")
    shutil.copyfile(file, partial)
    partial.replace(out)
