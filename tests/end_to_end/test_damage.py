"""Checkpoints that a disk has changed: found by name, and the run goes on from the newest whole one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import forked
from tests.support.runs import MODEL, SMALL, trace


def flags(corpus: Path, run: Path, *more: object) -> list[object]:
    """A run of 8 steps that keeps all of its checkpoints."""
    steps = ["--train-iters", 8, "--save-interval", 2, "--keep-checkpoints", 0]
    return [*MODEL, *SMALL, "--data-path", corpus, "--save", run, *steps, *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> tuple[Path, Path]:
    """A run that came to its end, and the same stopped after 6 steps."""
    folder = tmp_path_factory.mktemp("runs")
    assert forked(*flags(corpus, folder / "whole"))[0] == [0]
    assert forked(*flags(corpus, folder / "stopped", "--exit-interval", 6))[0] == [0]
    return folder / "whole", folder / "stopped"


def biggest(checkpoint: Path) -> Path:
    return max(checkpoint.glob("*.distcp"), key=lambda p: p.stat().st_size)


def flip_a_bit(checkpoint: Path) -> None:
    content = bytearray(biggest(checkpoint).read_bytes())
    content[len(content) // 2] ^= 4
    biggest(checkpoint).write_bytes(content)


def truncate(checkpoint: Path) -> None:
    biggest(checkpoint).write_bytes(biggest(checkpoint).read_bytes()[:-1])


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / ".metadata").unlink()


def change_a_number(checkpoint: Path) -> None:
    manifest = checkpoint / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"consumed_samples": 24', '"consumed_samples": 25'))


def manifest_of_another_step(checkpoint: Path) -> None:
    shutil.copy(checkpoint.with_name("iter_0000004") / "manifest.json", checkpoint)


def manifest_of_another_run(checkpoint: Path) -> None:
    """Of the same step of a run with another seed."""
    manifest = checkpoint / "manifest.json"
    shutil.copy(checkpoint.parents[2] / "oth" / "checkpoints" / checkpoint.name / "manifest.json", manifest)


def lose_the_folder(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit": (flip_a_bit, "__0_0.distcp is not what was written (checksum "),
    "truncated": (truncate, "__0_0.distcp has "),
    "missing": (lose_a_file, ".metadata is missing, it should have "),
    "number": (change_a_number, "manifest.json is damaged: its content is not what was written"),
    "other step": (manifest_of_another_step, "is that of another checkpoint, of step 4"),
    "other run": (manifest_of_another_run, "it should have "),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_whole_one_is_gone_on_from(kind: str, runs: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    whole, run = runs[0], Path(shutil.copytree(runs[1], tmp_path / "run"))
    if kind == "other run":
        assert forked(*flags(corpus, tmp_path / "oth", "--seed", 5, "--exit-interval", 6))[0] == [0]
    damage, says = DAMAGE[kind]
    damage(run / "checkpoints" / "iter_0000006")
    codes, said = forked(*flags(corpus, run))
    assert codes == [0], said
    (sentence,) = (line for line in said.splitlines() if line.startswith("pretrain_distill.py: "))
    assert says in sentence
    assert "it is set aside as damaged_iter_0000006; going on from iter_0000004" in sentence
    assert (run / "checkpoints" / "damaged_iter_0000006").is_dir()
    assert "resuming at step 4 of 8 steps" in said
    assert trace(run) == trace(whole)


def test_several_ranks_share_the_reading_and_agree(runs: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    layout = ["--tensor-model-parallel-size", 2]
    assert forked(*flags(corpus, whole, *layout), ranks=2)[0] == [0, 0]
    assert forked(*flags(corpus, run, *layout, "--exit-interval", 6), ranks=2)[0] == [0, 0]
    for step in (4, 6):
        flip_a_bit(run / "checkpoints" / f"iter_{step:07d}")
    codes, said = forked(*flags(corpus, run, *layout), ranks=2)
    assert codes == [0, 0], said
    assert said.count("is set aside as damaged_iter_") == 2
    assert trace(run) == trace(whole)


def test_latest_that_names_what_is_gone(runs: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / "iter_0000006")
    codes, said = forked(*flags(corpus, run))
    assert codes == [0]
    assert "latest names iter_0000006, which is not there; going on from iter_0000004" in said
    assert trace(run) == trace(runs[0])


def test_without_a_whole_one_nothing_is_changed(runs: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    for step in (2, 4, 6):
        flip_a_bit(run / "checkpoints" / f"iter_{step:07d}")
    before = sorted(run.rglob("*"))
    codes, said = forked(*flags(corpus, run))
    assert codes == [2]
    assert said.count("\n") == 1 and "iter_0000006 is damaged: __0_0.distcp is not what was written" in said
    assert f"no checkpoint of {run} is whole: bring one back, or remove {run}/latest to start anew" in said
    assert sorted(run.rglob("*")) == before
    (run / "latest").unlink()
    assert forked(*flags(corpus, run))[0] == [0]
    assert trace(run) == trace(runs[0])


def test_weights_are_read_whole_before_they_are_used(runs: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(runs[1], tmp_path / "source"))
    flip_a_bit(source / "checkpoints" / "iter_0000006")
    codes, said = forked(*flags(corpus, tmp_path / "run", "--load", source))
    assert codes == [2]
    assert "iter_0000006 is damaged: __0_0.distcp is not what was written" in said
    assert not list((tmp_path / "run").glob("checkpoints"))


def test_every_file_has_a_checksum(runs: tuple[Path, Path]) -> None:
    for checkpoint in (runs[0] / "checkpoints").iterdir():
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        files = {p.name for p in checkpoint.iterdir()} - {"manifest.json"}
        assert manifest["checksums"].keys() == manifest["files"].keys() == files
        assert ".metadata" in files
