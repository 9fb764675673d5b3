"""What the ranks of a job must have in common before the first step, and how each states it.

Ranks on different nodes can be started with other flags, or read other files under the same path. Each alone would
run without an error, and together they would train on something that nobody asked for.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from megatron_distill.checkpoint import manifest
from megatron_distill.checkpoint.checksum import sample_checksum
from megatron_distill.checkpoint.tokenizer_files import all_files
from megatron_distill.config.error import ConfigError
from megatron_distill.models.attention import choose_backend
from megatron_distill.parallel import device
from megatron_distill.parallel.meeting import Meeting

from .plan import RunPlan
from .provenance import source_checksum, versions

_PLACES = {"--save", "--load", "--teacher-load", "--data-path", "--valid-data-path", "--tokenizer"}
"""Flags that may name another path on each node, as long as the same content is there."""
_TOKEN = ".seen_by_all_ranks_"
_VISIBLE_SECONDS = 5.0
"""How long a shared file system may take to show a new file to other nodes."""


def agree(plan: RunPlan, meeting: Meeting) -> None:
    """Check that all ranks of the job start from the same flags, files and code, and share --save. Collective.

    Raises:
        Refused: on every rank, naming a difference.
    """
    save = Path(plan.config.checkpoint.save)
    with meeting.refusing():
        stated = facts(plan) if meeting.size > 1 else {"newest": _newest(plan)}
    with _token(save, write=meeting.rank == 0 and not plan.finished) as token:
        first = meeting.agree(stated | {"_token": token})
        if plan.finished:
            meeting.leave()
        if not first["_token"]:
            return
        with meeting.refusing():
            _check_shared(save, first["_token"])
        meeting.agree({})


def facts(plan: RunPlan) -> dict[str, str]:
    """What this rank was started with, by name.

    Raises:
        ConfigError: --save has changed since the plan was made.
    """
    config = plan.config
    found = {name: value for name, value in flags(config).items() if name not in _PLACES}
    found["the newest checkpoint of --save"] = _newest(plan)
    places = {"--load": plan.load_from, "--teacher-load": plan.teacher.checkpoint if plan.teacher else None}
    for flag, checkpoint in places.items():
        if checkpoint is not None:
            found[flag] = f"a checkpoint with manifest {_checksum(checkpoint / manifest.NAME)}"
    for flag, values in (("--data-path", config.data.data_path), ("--valid-data-path", config.data.valid_data_path)):
        found[flag] = " ".join(map(_content, values or ()))
    if config.data.tokenizer:
        found["--tokenizer"] = _tokenizer(Path(config.data.tokenizer))
    found |= {f"version of {package}": number for package, number in versions().items()}
    found["source checksum"] = source_checksum()
    training = config.training
    found["resolved precision"] = str(device.dtype(training.precision)).removeprefix("torch.")
    found["attention backend"] = choose_backend(training.attention_backend, training.precision)
    return found | {"finished": str(plan.finished)}


def flags(config: Any, prefix: str = "") -> dict[str, str]:
    """Every flag of a config with its value, defaults included."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= flags(value, field.metadata["prefix"])
        else:
            words = "_".join(filter(None, (prefix, field.name))).replace("_", "-")
            found[f"--{words}"] = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return found


def _content(prefix: str) -> str:
    """A corpus by what is in its files; a weight as it is."""
    with suppress(FileNotFoundError):
        bin_file, idx_file = (sample_checksum(Path(f"{prefix}.{kind}")) for kind in ("bin", "idx"))
        return f"[.bin of {bin_file}, .idx of {idx_file}]"
    return prefix


def _tokenizer(path: Path) -> str:
    return ", ".join(f"{file.name} {_checksum(file)}" for file in all_files(path) if file.is_file())


def _checksum(path: Path) -> str:
    try:
        return f"{zlib.crc32(path.read_bytes()):08x}"
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _newest(plan: RunPlan) -> str:
    """The newest checkpoint as it is now, which must be the one that the plan found."""
    save = plan.config.checkpoint.save
    newest = manifest.read_latest(Path(save))
    folder = newest[0] if newest else None
    if folder != plan.resume_from:
        raise ConfigError(f"the newest checkpoint of {save} has changed while this run started; start again")
    return "none" if folder is None else f"{folder.name} with manifest {_checksum(folder / manifest.NAME)}"


@contextmanager
def _token(save: Path, *, write: bool) -> Iterator[str]:
    """The name of a new file in the run folder, for as long as the block runs; "" if this rank is not to write it."""
    if not write:
        yield ""
        return
    name = f"{_TOKEN}{secrets.token_hex(8)}"
    try:
        for old in save.glob(f"{_TOKEN}*"):  # of a start that was killed
            old.unlink(missing_ok=True)
        (save / name).touch()
    except OSError:  # a full disk; the first save reports it, if it is still so
        name = ""
    try:
        yield name
    finally:
        with suppress(OSError):
            (save / name).unlink(missing_ok=True)


def _check_shared(save: Path, token: str) -> None:
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while not (save / token).exists():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"--save {save} is not the folder that rank 0 writes to: a file that rank 0 has just written is not "
                "here; give a folder on a file system that all nodes share"
            )
        time.sleep(0.05)
