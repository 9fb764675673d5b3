"""What a file becomes, and what must stay as it is, when something is written under its name."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.data.whole_file import check_writable, open_partial, partial_path, write_whole, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_whole(path, "old")
    with pytest.raises(RuntimeError), written_whole(path) as file:  # noqa: PT012 - both happen inside
        file.write(b"half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    with written_whole(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["scores.json"]


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("")
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        write_whole(old, "x")
        write_whole(new, "x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [0o640, 0o640]


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, "through the pipe")
    reader.join(10)
    assert found == [b"through the pipe"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode) and names(tmp_path) == ["pipe"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """`tmp_path/null` is a link, so that a failure of this test harms no device."""
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    check_writable(link)
    write_whole(link, "nothing")
    assert link.is_symlink() and stat.S_ISCHR(link.stat().st_mode) and names(tmp_path) == ["null"]


def test_the_programs_own_output_is_written_into(tmp_path: Path) -> None:
    """`--out /dev/stdout >> log`: what the log already has stays, and the link is not replaced."""
    log, link = tmp_path / "log", tmp_path / "stdout"
    log.write_text("before ")
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        link.symlink_to(f"/proc/self/fd/{descriptor}")
        check_writable(link)
        write_whole(link, "after")
        assert log.read_text() == "before after" and link.is_symlink()
    finally:
        os.close(descriptor)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Neither one that lies under the file's name nor one under its temporary name."""
    precious, folder = tmp_path / "precious", tmp_path / "shared"
    precious.write_text("precious")
    folder.mkdir()
    path = folder / "result.json"
    for name in (path, partial_path(path), path.with_suffix(".partial")):
        name.symlink_to(precious)
    write_whole(path, "ours")
    assert path.read_text() == "ours" and not path.is_symlink()
    with open_partial(path) as file:
        file.write(b"ours")
    assert precious.read_text() == "precious" and not partial_path(path).is_symlink()
    dangling = folder / "dangling"
    dangling.symlink_to(tmp_path / "made elsewhere")
    write_whole(dangling, "ours")
    assert not (tmp_path / "made elsewhere").exists() and dangling.read_text() == "ours"


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    writers = [threading.Thread(target=write_whole, args=(path, str(n) * 100_000)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    text = path.read_text()
    assert len(text) == 100_000 and len(set(text)) == 1 and names(tmp_path) == ["scores.json"]


@pytest.mark.parametrize("what", ["missing folder", "file as folder", "directory", "loop", "name"])
def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = {
        "missing folder": tmp_path / "missing" / "out.json",
        "file as folder": tmp_path / "file" / "out.json",
        "directory": tmp_path / "folder",
        "loop": tmp_path / "loop",
        "name": tmp_path / ("x" * 300),
    }[what]
    before = names(tmp_path)
    for attempt in (check_writable, lambda path: write_whole(path, "x")):
        with pytest.raises(ConfigError, match="cannot be written: .*; give another file"):
            attempt(path)
    assert names(tmp_path) == before


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    check_writable(path)
    assert names(tmp_path) == []
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old" and names(tmp_path) == ["scores.json"]


def test_a_long_name_in_any_script(tmp_path: Path) -> None:
    for name in ("ß" * 127, "x" * 255):
        write_whole(tmp_path / name, "x")
    assert len(names(tmp_path)) == 2
