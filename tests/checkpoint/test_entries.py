"""What people and other programs put into a run's folder: found before the run begins, and never removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_distill.checkpoint.entries import check_entries
from megatron_distill.checkpoint.folder import drop_old, drop_partial, move_aside
from megatron_distill.checkpoint.manifest import NAME, candidates, latest_checkpoint
from megatron_distill.config.error import ConfigError
from tests.support.programs import Program
from tests.support.runs import MODEL, SMALL, start, trace

FILES = (".lock", "latest", "metrics.jsonl", "result.json", "run.json", "flags.txt")
FOLDERS = ("checkpoints", "tensorboard", "tokenizer", "checkpoints/iter_0000004")


def put(path: Path, kind: str) -> None:
    """Something else than a run has there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(path.name if kind == "loop" else "nothing")


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_run_that_cannot_write_is_refused_before_it_begins(name: str, tmp_path: Path) -> None:
    wrong = ("pipe", "file", "link", "loop") if name in FOLDERS else ("pipe", "folder", "loop")
    for kind in wrong:
        run = tmp_path / kind
        put(run / name, kind)
        with pytest.raises(ConfigError, match=f"{name.split('/')[-1]} .* and a run keeps a .* there; put that right"):
            check_entries(run)


def test_links_to_files_and_folders_are_somebodys_wish(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    (disk / "iter_0000004").mkdir(parents=True)
    run.mkdir()
    (run / "checkpoints").symlink_to(disk)
    (run / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
    (run / "notes").mkdir()
    check_entries(run)


def as_nobody() -> None:
    """Root may write everywhere."""
    os.setgid(65534)
    os.setuid(65534)


def test_a_first_save_that_is_not_allowed_is_said_before_the_first_step(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for folder in (corpus.parent, tmp_path, *tmp_path.parents[:3]):  # one more of each worker
        folder.chmod(0o755)
    run.chmod(0o777)
    (run / "checkpoints").chmod(0o555)
    flags = (*MODEL, *SMALL, "--num-layers", 2, "--data-path", corpus, "--train-iters", 2, "--save", run)
    done = Program("pretrain_distill.py", *flags, before=None if os.getuid() else as_nobody).finish()
    assert done.returncode == 2, done.stderr
    assert "checkpoints cannot be read and written by this user" in done.stderr and done.stderr.count("\n") == 1
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("foreign", ["iter_0000004_best", "iter_0000004 (copy)", "iter_4", "iter_00000004", "iter_²"])
def test_a_copy_that_a_person_made_stays_and_does_not_count(foreign: str, tmp_path: Path) -> None:
    names = ("iter_0000004", "iter_0000008", "iter_0000012", foreign)
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).write_text("{}")
    drop_old(tmp_path / "iter_0000012", 2, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_ten_million_steps_are_newer_than_nine(tmp_path: Path) -> None:
    names = ("iter_9999998", "iter_9999999", "iter_10000000")
    for name in names:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / NAME).write_text("{}")
    (tmp_path / "latest").write_text("gone")
    assert [p.name for p in candidates(tmp_path)] == list(reversed(names))
    drop_old(tmp_path / "checkpoints" / names[2], 2, 0)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == sorted(names[1:])


def test_what_a_crash_cannot_have_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for kind in ("file", "pipe", "link", "folder"):
        put(tmp_path / f".partial_{kind}", kind)
    drop_partial(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_the_name_of_a_checkpoint_is_set_aside(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = (*MODEL, *SMALL, "--num-layers", 2, "--data-path", corpus, "--train-iters", 2, "--save", run)
    start(*flags, "--exit-interval", 1)
    put(run / "checkpoints" / "iter_0000002" / "notes", "file")
    start(*flags)
    assert len(trace(run)) == 2 and (run / "latest").read_text() == "iter_0000002\n"
    assert [p.read_text() for p in run.glob("checkpoints/damaged_iter_0000002_*/notes")] == ["mine"]


@pytest.mark.parametrize("name", ["before_²", "before_x", "before_007", "before_"])
def test_names_that_look_like_an_abandoned_run(name: str, tmp_path: Path) -> None:
    put(tmp_path / name / "notes", "file")
    put(tmp_path / "checkpoints" / "iter_0000002", "folder")
    aside = move_aside(tmp_path)
    assert aside is not None and (aside / "checkpoints" / "iter_0000002").is_dir()
    assert (tmp_path / name / "notes").read_text() == "mine"


def test_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    put(tmp_path / "latest", "pipe")
    with pytest.raises(ConfigError, match=r"latest cannot be read: it is a pipe or a device, not a file"):
        latest_checkpoint(tmp_path)
