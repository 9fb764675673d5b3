"""The tokenizer of a run, kept beside its checkpoints, so that a run can be moved and still be exported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json
from megatron_distill.data.special_tokens import IDS, OF_A_FOLDER, files_beside
from megatron_distill.data.tokenizer import fingerprint, tokenizer_files, vocabulary

from .checksum import checksum
from .manifest import Manifest

FOLDER = "tokenizer"
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"),
)
"""What a tokenizer may consist of; none of it is code."""
_READ = (*FILES, "config.json")
"""What transformers looks at beside a tokenizer."""


def keep_tokenizer(source: str | None, run: Path) -> str | None:
    """Copy the tokenizer at `source`, a file or a folder, into the run; returns where it is, relative to the run.

    A file of the same name that has another content is replaced.
    """
    if source is None:
        return None
    path = Path(source)
    for file in all_files(path):
        _copy(file, run / FOLDER / file.name)
    return (Path(FOLDER) if path.is_dir() else Path(FOLDER) / path.name).as_posix()


def check_readable(source: str) -> None:
    """See now that the files which `keep_tokenizer` will copy can be read, and not when the model is exported.

    Raises:
        ConfigError: one of them is damaged.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    named = {folder / name for name in (*FILES, *IDS)} if path.is_dir() or path.name in OF_A_FOLDER else set()
    if wrong := sorted(file for file in named if os.path.lexists(file) and not file.is_file()):
        raise ConfigError(f"{wrong[0]} cannot be read: it is no file; remove it, or bring back the file")
    for file in all_files(path):
        if file.suffix == ".json" and file.is_file():
            read_json(file, dict[str, Any])


def tokenizer_path(checkpoint: Path, manifest: Manifest) -> Path | None:
    """Where the tokenizer of a checkpoint should be; checkpoints of format 1 may name one outside of their run."""
    if manifest.tokenizer is None:
        return None
    return checkpoint.absolute().parent.parent / manifest.tokenizer  # which an absolute one replaces


def find_tokenizer(checkpoint: Path, manifest: Manifest) -> str | None:
    """The path of a checkpoint's tokenizer, after comparing its files with their checksums.

    Raises:
        ConfigError: a file is missing or is not what was copied.
    """
    path = tokenizer_path(checkpoint, manifest)
    if path is not None:
        check_files(path, manifest)
    return None if path is None else str(path)


def check_files(path: Path, manifest: Manifest) -> None:
    """Compare the files of a checkpoint's tokenizer with the checksums of its manifest, as far as it has them.

    Raises:
        ConfigError: a file is missing, cannot be read or is not what was copied, or there is another one that was not.
    """
    folder = path if path.name == FOLDER or path.is_dir() else path.parent
    for name, expected in manifest.tokenizer_checksums.items():
        file = folder / name
        try:
            found = checksum(file)
        except FileNotFoundError as error:
            raise ConfigError(f"the tokenizer's file {file} is missing; {_REMEDY}") from error
        except OSError as error:
            raise ConfigError(f"the tokenizer's file {file} cannot be read: {error.strerror}") from error
        if found != expected:
            raise ConfigError(
                f"the tokenizer's file {file} is damaged: it is not what was kept with the checkpoint (checksum "
                f"{found}, in manifest.json {expected}); {_REMEDY}"
            )
    unknown = [name for name in _READ if name not in manifest.tokenizer_checksums and os.path.lexists(folder / name)]
    if manifest.tokenizer_checksums and unknown:
        raise ConfigError(
            f"{folder / unknown[0]} was not kept with the checkpoint, and may change what its tokenizer does; remove it"
        )


_REMEDY = "bring back the file that the run was trained with"


def checksums_of(run: Path, kept: str | None) -> dict[str, str]:
    """CRC-32 of each file of the tokenizer that a run keeps at `kept`, by name."""
    return {} if kept is None else {file.name: checksum(file) for file in all_files(run / kept)}


def identity_of(checkpoint: Path, manifest: Manifest) -> str | None:
    """Fingerprint of the vocabulary of a checkpoint's tokenizer; None where nothing is known.

    Raises:
        ConfigError: the tokenizer is damaged.
    """
    if manifest.tokenizer_fingerprint is not None:
        return manifest.tokenizer_fingerprint
    path = tokenizer_path(checkpoint, manifest)
    return fingerprint(path) if path is not None and path.exists() else None


def fingerprint_if_read(path: Path) -> str | None:
    """Fingerprint of the vocabulary of a tokenizer, None for a kind that only transformers reads."""
    try:
        return fingerprint(path)
    except ConfigError:
        return None


def common_ids(one: Path, other: Path) -> str:
    """How many ids mean the same token in two tokenizers, in words."""
    first, second = vocabulary(one), vocabulary(other)
    same = len(first.items() & second.items())
    return f"{same:,} of {max(len(first), len(second)):,} ids mean the same token"


def all_files(path: Path) -> list[Path]:
    """Every file that says what the tokenizer at `path` is, the special tokens that lie beside it included."""
    files = set(tokenizer_files(path))
    files |= {beside for file in files for beside in files_beside(file)}
    if path.is_dir():
        files |= {path / name for name in FILES if (path / name).is_file()}
    return sorted(files)


def _copy(file: Path, out: Path) -> None:
    if out.exists() and (out.samefile(file) or checksum(out) == checksum(file)):
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial.{os.getpid()}")
    partial.unlink(missing_ok=True)
    shutil.copyfile(file, partial)
    partial.replace(out)
