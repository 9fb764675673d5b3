"""All ranks of a model at the service of the first one, where lm-evaluation-harness runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from megatron_distill.models.inference import Inference

from .recorder import CrewFailedError

Result = TypeVar("Result")


class Crew:
    """The first rank calls, and every rank does the work; made on every rank of the role."""

    def __init__(self, model: Inference) -> None:
        self.model = model

    def call(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(model, *arguments)` on every rank; what it gives the first one. `work` belongs to a module.

        Raises:
            CrewFailedError: the first of several ranks failed. On one rank the work's own errors come through.
        """
        alone = dist.get_world_size() == 1
        try:
            self._tell((work, arguments))
            return work(self.model, *arguments)
        except Exception as error:
            if alone:
                raise
            raise CrewFailedError(f"the first rank failed while others wait for it ({error})") from error

    @contextmanager
    def led(self) -> Iterator[bool]:
        """True on the first rank, until whose block ends the others work; for these the block is nothing to do."""
        if dist.get_rank() != 0:
            self._follow()
            yield False
            return
        try:
            yield True
        finally:
            self._tell(None)

    def _tell(self, order: Any) -> None:
        if dist.get_world_size() > 1:
            dist.broadcast_object_list([order], src=0)

    def _follow(self) -> None:
        while True:
            box: list[Any] = [None]
            dist.broadcast_object_list(box, src=0)
            if box[0] is None:
                return
            work, arguments = box[0]
            work(self.model, *arguments)
