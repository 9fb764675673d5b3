"""What lies in a run's folder belongs to the run that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.checkpoint.folder import move_aside, point_at
from megatron_distill.checkpoint.manifest import find_checkpoint, latest_checkpoint, read_manifest
from megatron_distill.config.error import ConfigError
from megatron_distill.data.tokenizer import fingerprint
from tests.support.cluster import forked
from tests.support.corpora import write_corpus
from tests.support.runs import SMALL, rows
from tests.training.test_identity import write_tokenizer

MODEL = ("--hidden-size", 32, "--num-attention-heads", 4, "--num-layers", 2)


def write_run(run: Path) -> None:
    (run / "checkpoints" / "iter_0000008").mkdir(parents=True)
    (run / "tokenizer").mkdir()
    for name in ("evaluation.json", "result.json", "metrics.jsonl", "tokenizer/tokenizer.json", "notes.txt"):
        (run / name).write_text(name)


def test_everything_of_an_abandoned_run_is_moved_aside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number in (1, 2):
        write_run(run)
        aside = move_aside(run)
        assert aside == run / f"before_{number}"
        assert (aside / "checkpoints" / "iter_0000008").is_dir()
        for name in ("evaluation.json", "result.json", "metrics.jsonl", "tokenizer/tokenizer.json"):
            assert (aside / name).read_text() == name
        assert (run / "notes.txt").exists(), "what the program did not write stays"
        (run / "notes.txt").unlink()
        assert sorted(p.name for p in run.iterdir()) == [f"before_{i}" for i in range(1, number + 1)]
    assert move_aside(run) is None


def test_a_start_that_was_killed_while_it_moved_goes_into_the_same_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run)
    (run / ".partial_before").mkdir()
    (run / "evaluation.json").rename(run / ".partial_before" / "evaluation.json")
    assert move_aside(run) == run / "before_1"
    assert (run / "before_1" / "evaluation.json").exists() and (run / "before_1" / "checkpoints").is_dir()


def test_a_first_save_that_was_killed_leaves_no_tokenizer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / ".partial_iter_0000002").mkdir(parents=True)
    (run / "tokenizer").mkdir()
    assert move_aside(run) is None
    assert not (run / "tokenizer").exists()


@pytest.mark.parametrize("name", ["../../other/checkpoints/iter_0000002", "/tmp", "iter_1/../iter_2", "..", "x"])
def test_latest_names_a_checkpoint_and_no_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "latest").write_text(name)
    with pytest.raises(ConfigError, match="is not the name of a checkpoint"):
        latest_checkpoint(tmp_path)


def test_a_run_that_starts_anew_inherits_nothing(tmp_path: Path) -> None:
    corpus, run = write_corpus(tmp_path / "c", vocab=10), tmp_path / "run"
    first = write_tokenizer(tmp_path / "a" / "tokenizer.json", "abcdefgh")
    second = write_tokenizer(tmp_path / "b" / "tokenizer.json", "abcdhgfe")
    common = [*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--save-interval", 1, "--keep-checkpoints", 0]
    codes, said = forked(*common, "--tokenizer", first, "--train-iters", 3)
    assert codes == [0], said
    (run / "evaluation.json").write_text("{}")
    codes, said = forked(*common, "--tokenizer", second, "--train-iters", 3)
    assert codes == [2] and f"--tokenizer {second} is another tokenizer than that of {run}" in said, said
    (run / "latest").unlink()
    codes, said = forked(*common, "--tokenizer", second, "--train-iters", 2)
    assert codes == [0], said
    assert f"{run} has no `latest`, so the run starts anew; what it held is moved to {run / 'before_1'}" in said
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["iter_0000001", "iter_0000002"]
    assert (run / "before_1" / "checkpoints" / "iter_0000003").is_dir()
    assert (run / "before_1" / "evaluation.json").exists() and not (run / "evaluation.json").exists()
    assert [row["iteration"] for row in rows(run)] == [1, 2]
    assert (run / "tokenizer" / "tokenizer.json").read_bytes() == second.read_bytes()
    manifest = read_manifest(find_checkpoint(run))
    assert manifest.tokenizer_fingerprint == fingerprint(second) and manifest.format == 3
    assert json.loads((run / "result.json").read_text())["iterations"] == 2


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim, final = tmp_path / "victim", tmp_path / "run" / "checkpoints" / "iter_0000001"
    final.mkdir(parents=True)
    victim.write_text("precious")
    for name in ("latest.partial", "latest"):
        (tmp_path / "run" / name).symlink_to(victim)
    point_at(final)
    assert victim.read_text() == "precious"
    assert (tmp_path / "run" / "latest").read_text() == "iter_0000001\n"


def test_a_hugging_face_folder_is_told_how_to_come_in(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="convert_checkpoint.py from-hf"):
        find_checkpoint(tmp_path)
