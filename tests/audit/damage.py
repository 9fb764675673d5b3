"""Ways in which a file is not what was written: each takes a path and changes what lies there."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import json_damage


@dataclass(frozen=True)
class Damage:
    """One change of one file; `apply` makes it."""

    file: str
    """Relative to the scene."""
    kind: str
    """Of BYTES or PLACES, `swap` with the file `other`, or a name of json_damage."""
    other: str = ""
    """For `swap`, another file of the scene."""
    key: str = ""
    """For JSON, the path of the key."""
    resealed: bool = False
    """Whether the checksum that a manifest has of itself is made to fit afterwards."""

    def apply(self, scene: Path) -> None:
        """Change the file."""
        path = scene / self.file
        if self.kind == "swap":
            shutil.copyfile(scene / self.other, path)
        elif self.kind in BYTES:
            path.write_bytes(BYTES[self.kind](path.read_bytes()))
        elif self.kind in PLACES:
            PLACES[self.kind](path)
        else:
            path.write_bytes(json_damage.changed(path.read_bytes(), self.kind, self.key))
        if self.resealed:
            _reseal(path)

    def __str__(self) -> str:
        words = f"{self.file}: {self.kind}{f' ({self.other or self.key})' if self.other or self.key else ''}"
        return f"{words}, checksum made to fit" if self.resealed else words


def _reseal(manifest: Path) -> None:
    from megatron_distill.checkpoint.checksum import text_checksum

    values = json.loads(manifest.read_text())
    values.pop("checksum", None)
    sealed = {"checksum": text_checksum(json.dumps(values, sort_keys=True))} | values
    manifest.write_text(json.dumps(sealed, indent=1))


def _flip(content: bytes, where: float, bit: int = 4) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[min(len(changed) - 1, int(where * len(changed)))] ^= bit
    return bytes(changed)


def _flip_many(content: bytes) -> bytes:
    generator = random.Random(len(content))
    changed = bytearray(content)
    for _ in range(min(40, len(changed))):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _zero(content: bytes, where: float, count: int) -> bytes:
    begin = int(where * len(content))
    return content[:begin] + bytes(min(count, len(content) - begin)) + content[begin + count :]


def _noise(content: bytes) -> bytes:
    return random.Random(len(content)).randbytes(len(content))


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "first bit flipped": lambda c: _flip(c, 0.0),
    "bit flipped at 1/3": lambda c: _flip(c, 0.33, 1),
    "bit flipped at 2/3": lambda c: _flip(c, 0.67, 16),
    "last bit flipped": lambda c: _flip(c, 1.0, 1),
    "40 bits flipped": _flip_many,
    "empty": lambda c: b"",
    "cut to a byte": lambda c: c[:1],
    "cut to half": lambda c: c[: len(c) // 2],
    "last byte cut": lambda c: c[:-1],
    "first byte cut": lambda c: c[1:],
    "16 bytes cut within": lambda c: c[: len(c) // 2] + c[len(c) // 2 + 16 :],
    "16 zeros": lambda c: _zero(c, 0.5, 16),
    "512 zeros": lambda c: _zero(c, 0.25, 512),
    "all zeros": lambda c: bytes(len(c)),
    "noise": _noise,
    "garbage behind": lambda c: c + b"\x00garbage",
    "written twice": lambda c: c + c,
}


def _replace_by(path: Path, target: str | None) -> None:
    path.unlink()
    if target is None:
        path.mkdir()
    else:
        path.symlink_to(target)


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "a folder": lambda path: _replace_by(path, None),
    "a link to itself": lambda path: _replace_by(path, path.name),
    "a link to nothing": lambda path: _replace_by(path, "nothing_there"),
}


def byte_damages(file: str) -> list[Damage]:
    """All that can happen to a file whatever is in it."""
    return [Damage(file, kind) for kind in (*BYTES, *PLACES)]


def json_damages(file: str, content: bytes, keys: int) -> list[Damage]:
    """What can be wrong with a JSON file, or with the last line of a file of JSON lines; of `keys` keys."""
    whole = [Damage(file, kind) for kind in json_damage.WHOLE]
    paths = json_damage.key_paths(content)[:keys]
    return whole + [Damage(file, kind, key=path) for path in paths for kind in json_damage.OF_A_KEY]
