"""A student world inside test ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch.distributed as dist

from megatron_distill.config.run import Layout
from megatron_distill.parallel import worlds


@contextmanager
def student_world(*, tp: int = 1, pp: int = 1, num_microbatches: int = 1) -> Iterator[worlds.World]:
    """The ranks of this test as one role with the given layout; they meet through a file, so no port is needed."""
    size = worlds.job_size()
    layout = Layout(tensor=tp, pipeline=pp, data=size // (tp * pp), num_microbatches=num_microbatches)
    store = dist.FileStore(os.environ["STORE_FILE"], size) if size > 1 else dist.HashStore()
    with (
        mock.patch.object(worlds, "_store", return_value=store),
        worlds.open_world((worlds.Role("student", layout),), timeout_minutes=1.0) as world,
    ):
        yield world
