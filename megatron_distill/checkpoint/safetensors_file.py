"""A safetensors file written tensor by tensor, so that no more than one is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


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
