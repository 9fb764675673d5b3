"""Reading every byte of a checkpoint before any of it is used, each rank a part of the files."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.worlds import first_failure

from .checksum import checksum
from .folder import point_at, set_aside
from .manifest import Manifest, candidates, none_is_whole, read_manifest


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
    found: list[list[Path]] = [candidates(run) if dist.get_rank() == 0 else []]
    dist.broadcast_object_list(found, src=0)
    damages: dict[Path, str] = {}
    for folder in found[0]:
        damage = find_damage_together(folder)
        if not damage:
            return _leave(damages, folder)
        damages[folder] = damage
    if damages:
        raise none_is_whole(run, next(iter(damages.values())))
    return []


def _leave(damages: dict[Path, str], whole: Path) -> list[str]:
    said, failure = [], ""
    if dist.get_rank() == 0:
        try:
            for folder, damage in damages.items():
                said.append(f"{damage}; it is set aside as {set_aside(folder).name}, {whole.name} is whole")
            if damages:
                point_at(whole)
        except OSError as error:
            failure = str(error)
    failure = first_failure(failure)
    if failure:
        raise ConfigError(f"a damaged checkpoint of {whole.parent} could not be set aside ({failure})")
    return said


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
