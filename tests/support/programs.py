"""Programs of this repository in forked processes that have torch and megatron-core already.

A start costs tenths of a second and not the seconds of the imports. What a process does from then on is what its
command line does; tests of the start itself, of torchrun and of the shell scripts begin with a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.preload"])
UNCAUGHT = 70
"""Exit code of a program that ended by an exception which nothing caught."""


class Program:
    """A running program: one process, or one for each rank of a job, which share their output.

    Args:
        path: the program, from the repository's root.
        ranks: processes of the job; 0 for one that knows nothing of a job.
        folder: working directory.
        variables: added to the environment.
        before: called in each process before the program; a function of a module.
    """

    def __init__(
        self,
        path: str,
        *arguments: object,
        ranks: int = 0,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.words = [path, *map(str, arguments)]
        self.output, self.errors = _new_file(), _new_file()
        places = [_place(rank, ranks, port) for port in [_free_port()] for rank in range(ranks)] or [{}]
        files = (self.output, self.errors)
        self.processes: list[BaseProcess] = [
            FORKS.Process(target=_work, args=(self.words, files, folder, {**place, **(variables or {})}, before))
            for place in places
        ]
        for process in self.processes:
            process.start()

    def poll(self) -> int | None:
        """Exit code; None while it runs. As torchrun does, the first rank that fails ends the others."""
        codes = [process.exitcode for process in self.processes]
        failed = next((code for code in codes if code), None)
        if failed is not None and None in codes:
            self.kill()
        return None if None in codes and failed is None else failed or 0

    def wait(self, timeout_s: float = 300.0) -> int:
        """Exit code at its end.

        Raises:
            subprocess.TimeoutExpired: it did not end; it is killed.
        """
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(self.words, timeout_s, self.output.read_bytes())
            time.sleep(0.005)
        for process in self.processes:
            process.join()
        return code

    def finish(self, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Wait for the end: exit code and what it wrote."""
        code = self.wait(timeout_s)
        done = subprocess.CompletedProcess(self.words, code, self.output.read_text(), self.errors.read_text())
        self.output.unlink()
        self.errors.unlink()
        return done

    def kill(self) -> None:
        """Kill every rank and what it has started."""
        for process in self.processes:
            try:
                os.killpg(process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:
                process.kill()
        for process in self.processes:
            process.join()


def run_program(path: str, *arguments: object, ranks: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, on so many ranks."""
    done = Program(path, *arguments, ranks=ranks).finish()
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def call(program: str, *arguments: object) -> int:
    """Run a program of this repository in this process, as its command line does; returns the exit code."""
    path = ROOT / program
    sys.argv = [str(path), *map(str, arguments)]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
            return 1
        return ending.code or 0
    except BaseException:  # KeyboardInterrupt and CheckpointException are no Exception
        traceback.print_exc()
        return UNCAUGHT
    return 0


def _work(
    words: list[str],
    files: tuple[Path, Path],
    folder: Path,
    variables: Mapping[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.setpgid(0, 0)
    for number, file in enumerate(files, 1):
        with file.open("ab") as opened:
            os.dup2(opened.fileno(), number)
    os.chdir(folder)
    os.environ.update(variables)
    import torch

    torch.set_num_threads(1)
    if before is not None:
        before()
    code = call(*words)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun gives to a rank."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {**{name: str(value) for name, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _new_file() -> Path:
    number, name = tempfile.mkstemp(prefix="program-")
    os.close(number)
    return Path(name)
