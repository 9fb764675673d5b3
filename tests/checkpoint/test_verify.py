"""Every byte of a checkpoint is read before any of it is used, and none of it is named before it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from megatron_distill.checkpoint import folder
from megatron_distill.checkpoint.manifest import checkpoint_name, find_checkpoint, read_latest, read_manifest
from megatron_distill.checkpoint.verify import find_damage


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_each_file_is_read_by_one_of_the_ranks(parts: int, base_run: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(find_checkpoint(base_run), tmp_path / "copy"))
    names = sorted(read_manifest(checkpoint).files)
    assert len(names) >= parts
    for name in names:
        path = checkpoint / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = [find_damage(checkpoint, part=part, parts=parts) for part in range(parts)]
        path.write_bytes(whole)
        assert [f"{name} is not what was written" in said for said in found].count(True) == 1, found
        assert sum(map(bool, found)) == 1
    assert not any(find_damage(checkpoint, part=part, parts=parts) for part in range(parts))


def test_latest_names_what_is_there_already(base_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies at any moment leaves a name under which a checkpoint lies."""
    manifest = read_manifest(find_checkpoint(base_run))
    final = tmp_path / "checkpoints" / checkpoint_name(manifest.iteration)
    partial = folder.partial_folder(final)
    partial.mkdir(parents=True)
    (partial / "some.distcp").write_bytes(b"abc")
    named = []

    def point_at(path: Path) -> None:
        named.append(read_manifest(path).files)

    monkeypatch.setattr(folder, "point_at", point_at)
    folder.finish(partial, final, manifest, {})
    assert named == [{"some.distcp": 3}]
    assert not partial.exists() and read_latest(tmp_path) is None
