"""The student's end of the bridge: receives posted ahead, credits given back, parts put together."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Collection

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.parallel import device
from megatron_distill.parallel.bridge import Bridge, Transfer
from megatron_distill.tap import Tap

from .routes import Messages, Seat, Slice, part
from .service import END, Service
from .wire import Stamp, message_bytes, unpack

Expected = list[tuple[tuple[Slice, ...], Transfer]]


class ReceivedTeacher:
    """What one student rank is sent of the teacher.

    Args:
        replica, seat: which rank of the student this is.
        group: its tensor-parallel group; None: of size 1.
    """

    def __init__(
        self, service: Service, bridge: Bridge, replica: int, seat: Seat, group: dist.ProcessGroup | None
    ) -> None:
        self.service, self.bridge, self.replica, self.seat, self.group = service, bridge, replica, seat, group
        self.waited_seconds = 0.0
        """Time spent waiting for messages."""
        servers = service.pairing.servers(replica)
        self._posted: deque[tuple[int, Expected]] = deque()
        self._ahead = service.numbers()
        self._told: dict[int, deque[list[Transfer]]] = {server: deque() for server in servers}
        """For each teacher replica that serves this rank, the credits given that it may not have taken yet."""
        tables: Expected = []
        for server in servers[:1]:
            tables = self._expect(service.table_messages(), server)
        spare = [self._expect(service.table_messages(), server) for server in servers[1:]]
        self._post(service.credits * len(servers))
        self.tables = self._on_grid(self._open(tables, Stamp(-1, 0, 0, None)), service.tables_of(seat.stage))
        """Of the teacher: its embedding table, its output matrix, where this rank needs them."""
        for same in spare:
            self._open(same, Stamp(-1, 0, 0, None))
        self.waited_seconds = 0.0  # no step took it

    def take(self, number: int, batch: Batch, taps: Collection[Tap]) -> dict[Tap, Tensor]:
        """What was sent about micro-batch `number`, which must be the next one; `taps` were known before. Collective
        over `group`.

        Raises:
            BridgeError: the teacher is gone or late, or sent something else.
        """
        expected_number, expected = self._posted.popleft()
        assert number == expected_number, (number, expected_number)
        found = self._on_grid(self._open(expected, self.service.stamp(number, self.replica, batch)), taps)
        self._post(1)
        if self.seat == self.service.controller:
            self._tell(number, [self.service.pairing.server(self.replica, number)])
        return found

    def close(self) -> None:
        """Tell the teacher that this was all, and take what it had sent ahead.

        Raises:
            BridgeError: the teacher is gone.
        """
        if self.seat == self.service.controller:
            self._tell(END, self.service.pairing.servers(self.replica))
        for _, expected in self._posted:
            for _, transfer in expected:
                transfer.wait()
        for told in self._told.values():
            self._forget(told, 0)

    def _tell(self, number: int, servers: list[int]) -> None:
        for server in servers:
            told = self._told[server]
            told.append([self.bridge.tell(number, rank) for rank in self.service.members(server)])
            # A server begins a micro-batch only after it has taken the credit for the one `credits` before it.
            self._forget(told, self.service.credits)

    def _forget(self, told: deque[list[Transfer]], kept: int) -> None:
        """Wait for, and drop, all but the last `kept` credits: gloo calls no send done until somebody waits for it."""
        while len(told) > kept:
            for transfer in told.popleft():
                transfer.wait()

    def _post(self, count: int) -> None:
        """Expect some micro-batches more."""
        for number in itertools.islice(self._ahead, count):
            server = self.service.pairing.server(self.replica, number)
            self._posted.append((number, self._expect(self.service.messages_at(number), server)))

    def _expect(self, messages: Messages, server: int) -> Expected:
        found: Expected = []
        for (source, target), slices in messages.items():
            if target == self.seat:
                buffer = torch.empty(message_bytes(slices), dtype=torch.uint8, device=device.current())
                found.append((slices, self.bridge.receive(buffer, self.service.teacher_rank(server, source))))
        return found

    def _open(self, expected: Expected, stamp: Stamp) -> dict[Tap, Tensor]:
        parts: dict[Tap, list[tuple[Slice, Tensor]]] = {}
        begun = time.perf_counter()
        messages = [(slices, transfer.wait(), transfer.peer) for slices, transfer in expected]
        self.waited_seconds += time.perf_counter() - begun
        for slices, message, peer in messages:
            for tap, piece in unpack(message, slices, stamp, peer).items():
                parts.setdefault(tap, []).append(piece)
        return {tap: self._assemble(pieces) for tap, pieces in parts.items()}

    def _on_grid(self, found: dict[Tap, Tensor], taps: Collection[Tap]) -> dict[Tap, Tensor]:
        """With rows of zeros for the part of the student's vocabulary that the teacher does not have."""
        for tap in taps:
            form = self.service.forms.of(tap)
            if form.grid is None:
                continue
            start, stop = part(form.grid, self.service.student.tensor, self.seat.tensor)
            size = list(form.size)
            size[form.dim] = stop - start
            if tap not in found or found[tap].shape[form.dim] < stop - start:
                whole = torch.zeros(size, dtype=form.dtype, device=device.current())
                if tap in found:
                    whole.narrow(form.dim, 0, found[tap].shape[form.dim]).copy_(found[tap])
                found[tap] = whole
        return found

    def _assemble(self, pieces: list[tuple[Slice, Tensor]]) -> Tensor:
        """This rank's part of a tensor, or all of it where the loss needs it whole."""
        form = pieces[0][0].form
        ordered = [tensor for _, tensor in sorted(pieces, key=lambda piece: piece[0].start)]
        own = ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=form.dim)
        if not form.is_gathered or self.group is None:
            return own
        whole = own.new_empty(form.size)
        dist.all_gather(list(whole.chunk(self.group.size(), dim=form.dim)), own.contiguous(), group=self.group)
        return whole
