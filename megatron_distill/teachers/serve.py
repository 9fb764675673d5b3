"""The teacher's own ranks: forward passes ahead of the student, as far as its credits reach.

Every rank of a teacher replica hears the same credits and the same end, so all do the same micro-batches and nothing
is agreed on between them. It runs ahead across optimizer steps, validations and checkpoints of the student: it is
frozen, and what it reads is a function of the position in the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.parallel import device
from megatron_distill.parallel.bridge import Bridge, Transfer
from megatron_distill.tap import Tap

from .model import FrozenTeacher
from .routes import Messages, Seat
from .service import END, Service
from .wire import Stamp, pack


class Server:
    """One rank of a teacher replica."""

    def __init__(self, teacher: FrozenTeacher, service: Service, bridge: Bridge) -> None:
        self.teacher, self.service, self.bridge = teacher, service, bridge
        self.replica = parallel_state.get_data_parallel_rank()
        self.seat = Seat(
            parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_tensor_model_parallel_rank()
        )
        self.controllers = service.controllers(self.replica)
        self.begun = dict.fromkeys(self.controllers, 0)
        """Micro-batches begun for each student replica."""
        self.credits = dict.fromkeys(self.controllers, service.credits)
        """How many may be begun."""
        self.ended: set[int] = set()
        self.underway: dict[int, deque[tuple[int, Transfer]]] = {replica: deque() for replica in self.controllers}
        """For each student replica, what has been sent, and how many micro-batches were begun for it then."""

    def run(self, batches: Iterable[Batch]) -> None:
        """Serve the student until it ends; `batches` are those of `Service.items`.

        Raises:
            BridgeError: a student rank is gone.
        """
        self._send_tables()
        for (number, replica), batch in zip(self.service.items(self.replica), batches, strict=True):
            if not self._may_begin(replica):
                break
            self._serve(number, replica, batch)
        for replica in self.controllers:
            while replica not in self.ended:
                self._hear(replica)
        for replica in self.controllers:
            self._forget(replica, self.begun[replica])

    def _may_begin(self, replica: int) -> bool:
        while self.begun[replica] >= self.credits[replica] and replica not in self.ended:
            self._hear(replica)
        # A credit for a micro-batch is given after the student has taken it, so what was sent for it has arrived.
        self._forget(replica, self.begun[replica] - self.service.credits)
        self.begun[replica] += 1
        return replica not in self.ended

    def _forget(self, replica: int, number: int) -> None:
        """Wait for, and drop, what was sent up to the `number`th micro-batch of a replica.

        To ask whether they are done would not do: gloo says no of a send until somebody waits for it.
        """
        underway = self.underway[replica]
        while underway and underway[0][0] <= number:
            underway.popleft()[1].wait()

    def _hear(self, replica: int) -> None:
        if self.bridge.hear(self.controllers[replica]) == END:
            self.ended.add(replica)
        else:
            self.credits[replica] += 1

    def _serve(self, number: int, replica: int, batch: Batch) -> None:
        messages = self.service.messages_at(number)
        own = [parts for (source, _), parts in messages.items() if source.stage == self.seat.stage]
        taps = {part.tap for parts in own for part in parts}
        hidden, found = self.teacher.show(batch, taps, self._from_previous_stage())
        self._to_next_stage(hidden, replica)
        self._send(messages, found, self.service.stamp(number, replica, batch), replica)

    def _send_tables(self) -> None:
        messages, tables = self.service.table_messages(), self.teacher.tables()
        for replica in self.controllers:
            self._send(messages, tables, Stamp(-1, 0, 0, None), replica)

    def _send(self, messages: Messages, held: dict[Tap, Tensor], stamp: Stamp, replica: int) -> None:
        for (source, target), parts in messages.items():
            if source == self.seat:
                message = pack(parts, held, self.seat.tensor, self.service.teacher.tensor, stamp)
                self._sent(replica, self.bridge.send(message, self.service.student_rank(replica, target)))

    def _sent(self, replica: int, transfer: Transfer) -> None:
        self.underway[replica].append((self.begun[replica], transfer))

    def _from_previous_stage(self) -> Tensor | None:
        model = self.teacher.model
        if model.pre_process:
            return None
        forms, config = self.service.forms, model.config
        seq = forms.seq_length // (self.service.teacher.tensor if config.sequence_parallel else 1)
        size = (seq, forms.micro_batch_size, config.hidden_size)
        hidden = torch.empty(size, dtype=forms.dtype, device=device.current())
        group = parallel_state.get_pipeline_model_parallel_group()
        dist.recv(hidden, parallel_state.get_pipeline_model_parallel_prev_rank(), group=group)
        return hidden

    def _to_next_stage(self, hidden: Tensor, replica: int) -> None:
        if self.teacher.model.post_process:
            return
        group = parallel_state.get_pipeline_model_parallel_group()
        work = dist.isend(hidden.contiguous(), parallel_state.get_pipeline_model_parallel_next_rank(), group=group)
        assert work is not None
        self._sent(replica, Transfer(work, hidden, "the teacher's next stage", self.bridge.timeout))
