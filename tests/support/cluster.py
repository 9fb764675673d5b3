"""A cluster without luck: runs that end at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.programs import FORKS, ROOT

Pids = list[int]
"""Of the ranks, in order."""


def forked(
    *flags: object,
    ranks: int = 1,
    die_at: int = 0,
    on_row: tuple[int, Callable[[Pids], None]] | None = None,
    when: tuple[Callable[[], bool], Callable[[Pids], None]] | None = None,
    absent: int | None = None,
    own_flags: dict[int, list[object]] | None = None,
    own_folder: dict[int, Path] | None = None,
    timeout_s: float = 90,
) -> tuple[list[int], str]:
    """A whole run on forked ranks, which have torch and megatron-core already: exit codes and all that they said.

    With `die_at` the first rank kills itself at that change of a file in --save, and the others are killed too. With
    `on_row` something is done to the ranks when metrics.jsonl has that many lines, with `when` on another condition.
    `absent` is a rank that stands still
    from the start. `own_flags` are more flags of a rank. Ranks with a folder in `own_folder` are on a node of
    their own, on which relative paths begin in that folder.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(flag) for flag in flags]
    more = {rank: [str(flag) for flag in values] for rank, values in (own_flags or {}).items()}
    folders = own_folder or {}
    run = Path(words[words.index("--save") + 1])
    if on_row:
        count = on_row[0]
        when = (lambda: lines(run) >= count), on_row[1]
    said = Path(tempfile.mkstemp()[1])  # not beside the run, where the disk may be full
    workers = [
        FORKS.Process(
            target=_work,
            args=([*words, *more.get(rank, [])], rank, ranks, port, said),
            kwargs={"die_at": die_at if rank == 0 else 0, "node": folders.get(rank)},
        )
        for rank in range(ranks)
    ]
    for worker in workers:
        worker.start()
    if absent is not None:
        os.kill(workers[absent].pid or 0, signal.SIGSTOP)
    deadline = time.monotonic() + timeout_s
    while any(w.exitcode is None for w in workers) and time.monotonic() < deadline:
        if any(w.exitcode for w in workers):  # as torchrun does
            _end(workers)
        if when and when[0]():
            when[1]([w.pid for w in workers])
            when = None
        time.sleep(0.01)
    hang = [rank for rank, w in enumerate(workers) if w.exitcode is None]
    _end(workers)
    text = said.read_text()
    said.unlink()
    assert not hang, f"ranks {hang} did not end within {timeout_s:.0f} s\n{text[-3000:]}"
    return [w.exitcode for w in workers], text


def lines(run: Path) -> int:
    """Lines of metrics.jsonl so far."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _end(workers: list[multiprocessing.Process], grace_s: float = 3.0) -> None:
    deadline = time.monotonic() + grace_s
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.join()


def _work(words: list[str], rank: int, size: int, port: int, said: Path, *, die_at: int, node: Path | None) -> None:
    os.setpgid(0, 0)
    with said.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), OMP_NUM_THREADS="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if node is not None:
        os.chdir(node)
        os.environ["GROUP_RANK"], os.environ["LOCAL_RANK"] = str(rank), "0"
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    import pretrain_distill

    if die_at:
        _die_at(die_at, words[words.index("--save") + 1])
    code = pretrain_distill.main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_at(count: int, folder: str) -> None:
    """Kill this process group, which is this rank and what it forks, right before a file in `folder` is changed."""
    process, left = os.getpid(), count

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event == "open":
            path, mode, flags = arguments
            changes = bool(int(str(flags)) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = arguments[0] if arguments else "", event in _CHANGES
        if not changes or os.getpid() != process or not str(path).startswith(folder):
            return
        left -= 1
        if left == 0:
            print(f"killed before {event} {path}", flush=True)
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(watch)


_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
