"""Reading every byte of a checkpoint before any of it is used, each rank a part of the files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.worlds import first_failure

from .checksum import checksum
from .folder import DAMAGED, point_at
from .manifest import Manifest, candidates, latest_checkpoint, none_is_whole, read_manifest


def find_damage(folder: Path, *, part: int = 0, parts: int = 1) -> str:
    """What is wrong with a checkpoint, "" if nothing is, after reading this part of its files."""
    try:
        manifest = read_manifest(folder)
    except ConfigError as error:
        return str(error)
    for name in _share(manifest, part, parts):
        try:
            found = checksum(folder / name)
        except OSError as error:
            return f"checkpoint {folder} cannot be read: {name}: {error.strerror}"
        if found != manifest.checksums[name]:
            return (
                f"checkpoint {folder} is damaged: {name} is not what was written (checksum {found}, in manifest.json "
                f"{manifest.checksums[name]})"
            )
    return ""


def check_whole(folder: Path) -> None:
    """Read a checkpoint whole, alone.

    Raises:
        ConfigError: it is damaged.
    """
    damage = find_damage(folder)
    if damage:
        raise ConfigError(damage)


def find_damage_together(folder: Path) -> str:
    """`find_damage` by all ranks of the role, each a part of the files; the same on every rank. Collective."""
    return first_failure(find_damage(folder, part=dist.get_rank(), parts=dist.get_world_size()))


def go_back_to_whole(run: Path) -> list[str]:
    """Set aside every checkpoint that is newer than the newest whole one, and let `latest` name that one.

    Returns a sentence for each that was set aside. Collective over the role.

    Raises:
        ConfigError: none is whole, and nothing is changed, or a damaged one cannot be renamed.
    """
    found: list[tuple[str, list[Path]]] = [("", [])]
    if dist.get_rank() == 0:
        found = [(_broken_pointer(run), candidates(run))]
    dist.broadcast_object_list(found, src=0)
    ((pointer, folders),) = found
    damages: dict[Path, str] = {}
    for folder in folders:
        damage = find_damage_together(folder)
        if not damage:
            _leave(run, damages, folder if pointer or damages else None)
            said = [f"{damage}; it is set aside as {_aside(d).name}" for d, damage in damages.items()]
            return [f"{sentence}; going on from {folder.name}" for sentence in (*filter(None, [pointer]), *said)]
        damages[folder] = damage
    if pointer or damages:
        raise none_is_whole(run, pointer or next(iter(damages.values())))
    return []


def _broken_pointer(run: Path) -> str:
    try:
        latest_checkpoint(run)
    except ConfigError as error:
        return str(error)
    return ""


def _aside(damaged: Path) -> Path:
    """The name under which nothing takes it for a checkpoint."""
    return damaged.with_name(DAMAGED + damaged.name)


def _leave(run: Path, damages: Iterable[Path], whole: Path | None) -> None:
    failure = ""
    if dist.get_rank() == 0 and whole is not None:
        try:
            for folder in damages:
                if _aside(folder).exists():  # of this step, from an earlier time
                    shutil.rmtree(_aside(folder))
                folder.rename(_aside(folder))
            point_at(whole)
        except OSError as error:
            failure = str(error)
    failure = first_failure(failure)
    if failure:
        raise ConfigError(f"a damaged checkpoint of {run} could not be set aside ({failure})")


def _share(manifest: Manifest, part: int, parts: int) -> list[str]:
    """Every rank about as many bytes: the largest files first, each to the one that has least."""
    loads = [0] * parts
    own = []
    for name in sorted(manifest.checksums, key=lambda n: (-manifest.files.get(n, 0), n)):
        least = loads.index(min(loads))
        loads[least] += manifest.files.get(name, 0)
        if least == part:
            own.append(name)
    return own
