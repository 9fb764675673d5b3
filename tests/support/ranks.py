"""Run a test on real gloo processes, without a GPU.

    @ranks(4)
    def test_sum(world): ...

Every call gets fresh processes, so no state leaks between tests, forked from one server that has already imported
torch and megatron-core, so a test costs tenths of a second and not the import.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import FORKS


def ranks(size: int, *, timeout_s: float = 90.0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run the decorated test once on each of `size` ranks; its first argument is `rank`, others are parameters."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(tmp_path: Path, **arguments: Any) -> None:
            launch(body, size, timeout_s, tmp_path, arguments)

        own = [p for name, p in inspect.signature(body).parameters.items() if name not in ("rank", "tmp_path")]
        path = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = inspect.Signature([path, *own])  # type: ignore[attr-defined]
        return test

    return decorate


def launch(body: Callable[..., None], size: int, timeout_s: float, tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Start the ranks, and fail with the traceback of each that failed or the numbers of those that hang."""
    receive, send = FORKS.Pipe(duplex=False)
    takes_path = "tmp_path" in inspect.signature(body).parameters
    arguments = arguments | ({"tmp_path": tmp_path} if takes_path else {})
    where = (body.__module__, body.__qualname__)
    workers = [
        FORKS.Process(target=_work, args=(where, rank, size, str(tmp_path), arguments, send)) for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    send.close()
    failures, missing = _collect(receive, workers, time.monotonic() + timeout_s)
    for worker in workers:
        worker.join(timeout=0.2 if failures or missing else 5)
        if worker.is_alive():
            worker.kill()
            worker.join()
    if failures:
        text = "\n".join(f"--- rank {rank} of {size} ---\n{failure}" for rank, failure in sorted(failures.items()))
        pytest.fail(text, pytrace=False)
    if missing:
        pytest.fail(f"ranks {sorted(missing)} of {size} did not finish within {timeout_s:.0f} s", pytrace=False)


def _collect(receive: Connection, workers: list[Any], deadline: float) -> tuple[dict[int, str], set[int]]:
    failures: dict[int, str] = {}
    alive = set(range(len(workers)))
    while alive and not failures and time.monotonic() < deadline:
        if receive.poll(0.02):
            try:
                rank, failure = receive.recv()
            except EOFError:
                break
            alive.discard(rank)
            if failure:
                failures[rank] = failure
        for rank in list(alive):
            if workers[rank].exitcode not in (None, 0):
                failures[rank] = f"ended with exit code {workers[rank].exitcode}"
    return failures, alive if not failures else set()


def _work(
    where: tuple[str, str], rank: int, size: int, folder: str, arguments: dict[str, Any], send: Connection
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), STORE_FILE=f"{folder}/rendezvous")
    try:
        module = importlib.import_module(where[0])
        body = functools.reduce(getattr, where[1].split("."), module)
        inspect.unwrap(body)(rank=rank, **arguments)
        send.send((rank, None))
    except BaseException:
        send.send((rank, traceback.format_exc()))
        os._exit(0)
