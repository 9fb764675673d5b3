"""Checkpoints and safetensors files written tensor by tensor, so that no more than one is in memory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter, save
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

Produce = Callable[[str], Tensor]
"""Makes a tensor when it is its turn to be written."""

_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_checkpoint(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, produce: Produce) -> None:
    """Whole tensors as megatron-core's dist_checkpointing stores them (torch_dist), each in a file of its own.

    Needs no process group. Raises what `produce` raises, and OSError when the disk is full.
    """
    from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config

    described = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    # One file a tensor: torch keeps what it has written of a file until the file is full.
    writer = FileSystemWriter(folder, single_file_per_rank=False, thread_count=1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as intended
            save(described, storage_writer=writer, planner=_Planner(produce, dtype), no_dist=True)
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None  # what `produce` or the disk had to say
    torch.save({}, folder / "common.pt")
    save_config(CheckpointingConfig("torch_dist", 1), str(folder))


class _Planner(DefaultSavePlanner):
    """Plans with descriptions and makes the tensors when they are written."""

    def __init__(self, produce: Produce, dtype: torch.dtype) -> None:
        super().__init__()
        self.produce, self.dtype = produce, dtype

    def resolve_data(self, write_item: Any) -> Any:
        """The tensor of one write item."""
        return self.produce(write_item.index.fqn).to(self.dtype).contiguous()


def write_safetensors(
    path: Path, described: dict[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterator[tuple[str, Tensor]]
) -> None:
    """A safetensors file of tensors that come one by one, in any order; `described` has their names and shapes."""
    size = dtype.itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in described.items():
        end = offset + size * torch.Size(shape).numel()
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            assert tuple(tensor.shape) == described[name], name
            file.seek(start + header[name]["data_offsets"][0])
            file.write(tensor.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.truncate(start + offset)
