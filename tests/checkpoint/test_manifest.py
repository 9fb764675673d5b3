"""What a checkpoint folder must be before anything of it is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from megatron_distill.checkpoint.manifest import find_checkpoint, latest_checkpoint, read_manifest
from megatron_distill.checkpoint.verify import find_damage
from megatron_distill.config.error import ConfigError


@pytest.fixture
def run(base_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(base_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_and_its_checkpoint_mean_the_same(run: Path) -> None:
    folder = find_checkpoint(run)
    assert folder == run / "checkpoints" / "iter_0000030"
    assert find_checkpoint(folder) == folder
    manifest = read_manifest(folder)
    assert (manifest.iteration, manifest.consumed_samples, manifest.consumed_tokens) == (30, 120, 120 * 32)
    assert manifest.layers == manifest.trainable_layers == tuple(range(6))
    assert manifest.shape.num_layers == 6


def test_a_file_that_is_missing_or_short(run: Path) -> None:
    folder = find_checkpoint(run)
    victim = max(folder.glob("*.distcp"), key=lambda p: p.stat().st_size)
    size = victim.stat().st_size
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=f"{victim.name} has {size - 1} bytes, it should have {size}"):
        read_manifest(folder)
    victim.unlink()
    with pytest.raises(ConfigError, match=f"{victim.name} is missing"):
        read_manifest(folder)


def test_a_manifest_that_is_missing_damaged_or_newer(run: Path) -> None:
    folder = find_checkpoint(run)
    path = folder / "manifest.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="is damaged"):
        read_manifest(folder)
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="is damaged"):
        read_manifest(folder)
    path.write_text(json.dumps(json.loads(whole) | {"format": 99}))
    with pytest.raises(ConfigError, match="format 99; this version reads 1 to 3"):
        read_manifest(folder)
    path.write_text(whole.replace('"consumed_samples": 120', '"consumed_samples": 121'))
    with pytest.raises(ConfigError, match="is damaged: its content is not what was written"):
        read_manifest(folder)
    values = json.loads(whole) | {"format": 1}
    del values["layers"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="is damaged.*layers"):
        read_manifest(folder)
    path.unlink()
    with pytest.raises(ConfigError, match="is not a checkpoint: it has no manifest.json"):
        read_manifest(folder)


def test_a_manifest_of_before_is_read(run: Path) -> None:
    path = find_checkpoint(run) / "manifest.json"
    values = json.loads(path.read_text()) | {"format": 1}
    for name in ("checksum", "checksums", "origin"):
        del values[name]
    path.write_text(json.dumps(values))
    manifest = read_manifest(path.parent)
    assert manifest.checksums == {} and manifest.origin == ()
    assert find_damage(path.parent) == ""


def test_latest_that_names_nothing(run: Path) -> None:
    (run / "latest").write_text("iter_0000099\n")
    with pytest.raises(ConfigError, match="names iter_0000099, which is not there"):
        find_checkpoint(run)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nothing") is None
    with pytest.raises(ConfigError, match="holds no finished checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "palm-300m").mkdir()
    with pytest.raises(ConfigError, match=f"did you mean {tmp_path}/palm-300m"):
        find_checkpoint(tmp_path / "palm-30m")
