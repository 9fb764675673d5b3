"""Processes that make parts side by side."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from megatron_distill.config.error import ConfigError

from ..tokenizer import Tokenizer
from .part_maker import Job, PartMaker
from .parts import Recipe, Record
from .worker import encode_job

WORKER_BYTES = 64 << 20
"""Text on the disk that a process is started for; less is done by another sooner than the process has begun."""

Progress = Callable[[int, tuple[int, int, int, int]], None]
"""Told the number of a part and the counts of `part_maker.Report`."""


def make_parts(
    recipe: Recipe, tokenizer: Tokenizer, jobs: Sequence[Job], workers: int, lock: int, progress: Progress
) -> dict[int, Record]:
    """Records of all jobs by part number, made by up to `workers` cores.

    One process a core, as long as there is work for all of them; where there is less, the tokenizer's own library has
    several threads in each. `lock` is a descriptor that the processes keep open; `tokenizer` the one of
    the recipe, for this process, with `workers` threads.

    Raises:
        ConfigError: what the first one that fails says; parts that were made stay.
    """
    enough = sum(job.piece.num_bytes for job in jobs) // WORKER_BYTES
    count = max(1, min(workers, len(jobs), enough))
    if count == 1:
        maker = PartMaker(recipe, tokenizer)
        return {
            job.files.number: maker.make(job, lambda *counts, number=job.files.number: progress(number, counts))
            for job in jobs
        }
    with ExitStack() as stack:
        crew = [stack.enter_context(Worker(recipe, workers // count, lock)) for _ in range(count)]
        return _share_out(crew, list(jobs), progress)


def _share_out(crew: list[Worker], jobs: list[Job], progress: Progress) -> dict[int, Record]:
    waiting = jobs[::-1]
    records: dict[int, Record] = {}
    with selectors.DefaultSelector() as selector:
        for worker in crew:
            selector.register(worker.output, selectors.EVENT_READ, worker)
            worker.take(waiting.pop())
        while len(records) < len(jobs):
            for key, _ in selector.select():
                worker = key.data
                for said in worker.hear():
                    number = worker.job.files.number
                    if "counts" in said:
                        progress(number, tuple(said["counts"]))
                        continue
                    records[number] = msgspec.convert(said["record"], Record)
                    if waiting:
                        worker.take(waiting.pop())
    return records


class Worker:
    """One process; ended with `with`, whatever it is doing."""

    def __init__(self, recipe: Recipe, threads: int, lock: int) -> None:
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "megatron_distill.data.prepare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what a dead worker did not take must not come up again when its pipe is closed
            pass_fds=(lock,),
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        self._unread = b""
        self.job: Job | None = None
        self._tell({"recipe": asdict(recipe), "threads": threads})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self.output.close()

    def take(self, job: Job) -> None:
        """Start a job."""
        self.job = job
        self._tell(encode_job(job))

    def hear(self) -> list[dict[str, Any]]:
        """What it says.

        Raises:
            ConfigError, OSError: what it could not do, and why.
            ChildProcessError: it ended without a word.
        """
        data = os.read(self.output.fileno(), 1 << 16)
        *lines, self._unread = (self._unread + data).split(b"\n")
        said = [json.loads(line) for line in lines]
        for message in said:
            if "errno" in message:
                raise OSError(message["errno"], message["error"], message["filename"])
            if "error" in message:
                raise ConfigError(message["error"])
        if not data:
            raise self._lost()
        return said

    def _tell(self, what: dict[str, Any]) -> None:
        try:
            self._input.write(json.dumps(what).encode() + b"\n")
        except BrokenPipeError as error:
            raise self._lost() from error

    def _lost(self) -> ChildProcessError:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ChildProcessError(f"a worker {how}; give fewer --workers if memory was short")
