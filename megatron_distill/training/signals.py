"""Signals that ask a run to save and end: what queues, terminals and operators send.

Handlers of Python run between two of its instructions, so a rank that waits inside a library does not notice a signal.
For a student that is soon enough, because its waits are short. A teacher can wait for its student as long as a
validation takes, so a thread passes the signal on.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from megatron_distill.parallel import device

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM: torchrun, Slurm; SIGINT: Ctrl-C; SIGHUP: a closed terminal; SIGUSR1, SIGUSR2: `sbatch --signal`."""
_KEY = "asked to stop"


class StopAsked(Exception):
    """A rank of the job was asked to stop; raised on every rank of the role."""


class StopSignals:
    """Notes the signals that this rank gets while the block runs, and what a rank of another role passes on.

    Args:
        store: where other roles write; None if there are none, or if another rank of this role looks there.
        lasting: signals that come after the block, when all is saved and the process only has to end, are ignored.
    """

    def __init__(self, store: dist.Store | None = None, *, lasting: bool = False) -> None:
        self.store, self.lasting, self._noted = store, lasting, False

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in ASKING}
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.lasting and kind is None else handler)

    @property
    def received(self) -> bool:
        """Whether this rank knows that the run is to stop."""
        self._noted = self._noted or (self.store is not None and self.store.check([_KEY]))
        return self._noted

    def received_by_any(self, seconds: float = 0.0) -> tuple[bool, float]:
        """Whether any rank of the role knows it, and the largest `seconds` that a rank gives. Collective."""
        figures = torch.tensor([float(self.received), seconds], dtype=torch.float64, device=device.current())
        dist.all_reduce(figures, dist.ReduceOp.MAX)
        asked, longest = figures.tolist()
        return asked > 0, longest

    def _note(self, number: int, frame: object) -> None:
        self._noted = True


@contextmanager
def passed_on(store: dist.Store | None, *, lasting: bool = False) -> Iterator[None]:
    """Write every signal to the store instead of ending: the student reads it there, saves, and ends the job.

    If `lasting`, signals that come after the block are ignored, as by `StopSignals`.
    """
    arrived, write = socket.socketpair()
    write.setblocking(False)
    before: dict[int, Any] = {number: signal.signal(number, _nothing) for number in ASKING}
    previous = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    Thread(target=_pass_on, args=(arrived, store), daemon=True).start()
    try:
        yield
        before = dict.fromkeys(before, signal.SIG_IGN) if lasting else before
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        write.close()  # which ends the thread


def _nothing(number: int, frame: object) -> None:
    """Python writes the number to the socket before it calls this."""


def _pass_on(arrived: socket.socket, store: dist.Store | None) -> None:
    with arrived:
        while number := arrived.recv(1):
            if store is not None and number[0] in ASKING:
                store.set(_KEY, "1")
