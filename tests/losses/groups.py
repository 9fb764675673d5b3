"""The tensor-parallel group of a test's ranks."""

from __future__ import annotations

import os

import torch.distributed as dist


def join(rank: int, size: int) -> dist.ProcessGroup:
    """All ranks of the test, over gloo; they meet through a file."""
    store = dist.FileStore(os.environ["STORE_FILE"], size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    assert dist.group.WORLD is not None
    return dist.group.WORLD
