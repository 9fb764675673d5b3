"""Damaged JSON becomes one sentence, sound JSON a typed value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import parse_json, read_json, set_aside


@dataclass(frozen=True)
class Record:
    step: int
    loss: float
    layers: tuple[int, ...] = ()
    note: str | None = None


def test_sound_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"step": 3, "loss": NaN, "layers": [0, 2], "unknown": {}}')
    record = read_json(path, Record)
    assert (record.step, record.layers, record.note) == (3, (0, 2), None) and math.isnan(record.loss)
    assert parse_json(b'{"a": 1, "b": 2.5}', dict[str, float], "text") == {"a": 1, "b": 2.5}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"3", b'{"step": 3}', b'{"step": "3", "loss": 1}', b'{"step": 3.5, "loss": 1}'),
        *(b'{"step": true, "loss": 1}', b'{"step": 1, "loss": 1, "layers": 4}', b'{"step": null, "loss": 1}'),
        *(b"\xff\xfe{\x00}\x00", b'{"step": 3, "loss": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 64),
        *(b'{"step": Infinity, "loss": 1}', b'{"step": ' + b"9" * 5000 + b', "loss": 1}', b'{"step": 1, "loss": 1} x'),
    ],
)
def test_damage_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_json(path, Record)
    said = str(raised.value)
    assert said.startswith(f"{path} is damaged: ") and "\n" not in said and len(said) < 400


def test_what_cannot_be_read_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Record)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json(tmp_path, Record)


def test_damaged_files_are_kept(tmp_path: Path) -> None:
    path, names = tmp_path / "a.json", []
    for content in ("one", "two", "three"):
        path.write_text(content)
        names.append(set_aside(path))
    assert [p.read_text() for p in names] == ["one", "two", "three"] and not path.exists()
    value: Any = [p.name for p in names]
    assert value == ["a.json.damaged", "a.json.damaged_2", "a.json.damaged_3"]
