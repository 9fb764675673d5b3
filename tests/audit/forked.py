"""Programs in forked processes that have torch and megatron-core already: a start costs a tenth of a second."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.support.programs import FORKS, UNCAUGHT


@dataclass(frozen=True)
class Task:
    """A function of this package that runs in a process of its own; what it returns must be JSON."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Of `run`, after the folder in which it runs."""
    folder: Path
    """Its working directory; made for it."""


@dataclass(frozen=True)
class Ending:
    """How a task ended."""

    exit_code: int | None
    """None where it did not end in time; negative for a signal."""
    output: str
    """What it wrote to stdout and stderr."""
    value: Any
    """What `run` returned; None where it did not come so far."""
    seconds: float


def run_all(tasks: Sequence[Task], workers: int, timeout_s: float = 90.0) -> Iterator[tuple[int, Ending]]:
    """Number and ending of each task, `workers` at a time, in the order in which they end."""
    waiting = iter(enumerate(tasks))
    running: dict[int, tuple[BaseProcess, int, float]] = {}
    while True:
        while len(running) < workers and (following := next(waiting, None)) is not None:
            number, task = following
            task.folder.mkdir(parents=True, exist_ok=True)
            process = FORKS.Process(target=_work, args=(task,))
            process.start()
            running[process.sentinel] = (process, number, time.monotonic())
        if not running:
            return
        ended = wait(list(running), timeout=0.5)
        late = [s for s, (_, _, begun) in running.items() if time.monotonic() - begun > timeout_s]
        for sentinel in {*ended, *late}:
            process, number, begun = running.pop(int(str(sentinel)))
            yield number, _ending(process, tasks[number].folder, time.monotonic() - begun, int(str(sentinel)) in late)


def _ending(process: BaseProcess, folder: Path, seconds: float, late: bool) -> Ending:
    if late and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    output = folder.with_suffix(".output").read_text(errors="replace").replace(str(folder), ".")
    ending = folder.with_suffix(".ending")
    code, value = json.loads(ending.read_text()) if ending.exists() else (process.exitcode, None)
    return Ending(None if late else code, output, value, seconds)


def _work(task: Task) -> None:
    os.setpgid(0, 0)
    with task.folder.with_suffix(".output").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(task.folder)
    import torch

    torch.set_num_threads(1)
    code, value = 0, None
    try:
        code, value = task.run(*task.arguments)
    except Exception:
        traceback.print_exc()
        code = UNCAUGHT
    sys.stdout.flush()
    sys.stderr.flush()
    task.folder.with_suffix(".ending").write_text(json.dumps([code, value]))
    os._exit(0)
