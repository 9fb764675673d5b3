"""Messages between ranks of different roles, over process groups of their own.

Tensors go by the device's backend, asynchronously: a send holds its tensor until the receiver has it, a receive is
posted before the tensor is needed. Small whole numbers (credits) go by gloo, so that neither side touches its GPU for
them. Whoever waits for a peer that is gone or late is told who it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import OutsideError

from . import device

_POLL_SECONDS = 0.0005
_FOREVER = timedelta(days=3650)
"""Nobody knows how long a student validates; a peer that dies is noticed all the same."""
_TENSORS, _NUMBERS = 0, 1


class BridgeError(OutsideError):
    """A peer is gone, late, or sent something else than it should have."""


class Transfer:
    """A tensor on its way."""

    def __init__(self, work: dist.Work, tensor: Tensor, peer: str, timeout: timedelta) -> None:
        self.work, self.tensor, self.peer, self.timeout = work, tensor, peer, timeout

    def wait(self) -> Tensor:
        """The tensor, once it is there (or sent).

        Raises:
            BridgeError: it did not come in time, or the peer is gone.
        """
        begun = time.monotonic()
        try:
            if self.tensor.is_cuda:
                self._wait_for_stream(begun)
            else:
                self.work.wait(self.timeout)
        except RuntimeError as error:
            late = time.monotonic() - begun >= self.timeout.total_seconds()
            raise BridgeError(_silence(self.peer, late, self.timeout)) from error
        return self.tensor

    def is_done(self) -> bool:
        """Whether `wait` would return at once."""
        return self.work.is_completed()

    def _wait_for_stream(self, begun: float) -> None:
        """NCCL's own wait returns at once and would hang on the device."""
        while not self.work.is_completed():
            if time.monotonic() - begun > self.timeout.total_seconds():
                raise RuntimeError("timed out")
            time.sleep(_POLL_SECONDS)
        self.work.wait()


def _silence(peer: str, late: bool, timeout: timedelta) -> str:
    if late:
        return f"nothing came from {peer} for {timeout.total_seconds() / 60:g} minutes; see what it does, or raise " + (
            "--distributed-timeout-minutes"
        )
    return f"{peer} is gone; its own message, if it left one, says why"


@dataclass(frozen=True)
class Bridge:
    """One rank's end: the groups that it shares with the ranks it exchanges messages with."""

    tensors: dist.ProcessGroup
    numbers: dist.ProcessGroup
    members: tuple[int, ...]
    """Ranks of the job in the groups; peers are named by these numbers."""
    names: Mapping[int, str]
    """Of members, such as `teacher rank 1`."""
    timeout: timedelta

    def send(self, tensor: Tensor, to: int) -> Transfer:
        """Start sending a contiguous tensor to a rank of the job."""
        work = self._start(lambda: self.tensors.send([tensor], self.members.index(to), _TENSORS), to)
        return Transfer(work, tensor, self._name(to), self.timeout)

    def receive(self, tensor: Tensor, source: int) -> Transfer:
        """Start receiving the next tensor from a rank of the job; sizes must agree."""
        work = self._start(lambda: self.tensors.recv([tensor], self.members.index(source), _TENSORS), source)
        return Transfer(work, tensor, self._name(source), self.timeout)

    def tell(self, number: int, to: int) -> Transfer:
        """Start sending a whole number."""
        tensor = torch.tensor([number], dtype=torch.int64)
        work = self._start(lambda: self.numbers.send([tensor], self.members.index(to), _NUMBERS), to)
        return Transfer(work, tensor, self._name(to), self.timeout)

    def hear(self, source: int) -> int:
        """The next whole number from a rank of the job, however long it takes.

        Raises:
            BridgeError: the peer is gone.
        """
        tensor = torch.zeros(1, dtype=torch.int64)
        try:
            self.numbers.recv([tensor], self.members.index(source), _NUMBERS).wait(_FOREVER)
        except RuntimeError as error:
            raise BridgeError(_silence(self._name(source), False, self.timeout)) from error
        return int(tensor)

    def _name(self, rank: int) -> str:
        return f"{self.names[rank]} (rank {rank} of the job)"

    def _start(self, begin, peer: int) -> dist.Work:  # type: ignore[no-untyped-def]
        try:
            return begin()
        except RuntimeError as error:  # gloo notices a closed connection here too
            raise BridgeError(_silence(self._name(peer), False, self.timeout)) from error


def open_bridge(
    store: dist.Store, members: tuple[int, ...], names: Mapping[int, str], rank: int, timeout: timedelta
) -> Bridge:
    """Connect `members` (ranks of the job), of which `rank` is this one. Collective over them.

    Raises:
        BridgeError: some of them did not come.
    """
    here = members.index(rank)
    store.set(f"here{rank}", "1")
    try:
        store.wait([f"here{member}" for member in members], timeout)
    except RuntimeError as error:
        minutes = timeout.total_seconds() / 60
        missing = [names[m] for m in members if not store.check([f"here{m}"])]
        raise BridgeError(f"{', '.join(missing)} did not come within {minutes:g} minutes") from error
    gloo: Any = dist.ProcessGroupGloo(dist.PrefixStore("numbers", store), here, len(members), _FOREVER)
    tensors = gloo
    if device.is_cuda():
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        tensors = dist.ProcessGroupNCCL(dist.PrefixStore("tensors", store), here, len(members), options)
    return Bridge(tensors=tensors, numbers=gloo, members=members, names=names, timeout=timeout)
