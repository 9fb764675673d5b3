"""Safetensors files written and read tensor by tensor, so that no more than one is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .checksum import ChecksummedFile

CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_safetensors(
    path: Path, described: dict[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterator[tuple[str, Tensor]]
) -> None:
    """A safetensors file of tensors that come one by one, in the order of `described`: their names and shapes."""
    size = dtype.itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in described.items():
        end = offset + size * torch.Size(shape).numel()
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    with ChecksummedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors:
            assert tuple(tensor.shape) == described[name], name
            assert file.tell() == start + header[name]["data_offsets"][0], name
            file.write(tensor.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().data)


class SafetensorsFile:
    """The tensors of a file, read when asked for.

    The safetensors library looks over the file first, but would map it, and all that was ever read of it would stay in
    memory.

    Raises:
        ConfigError: it is no safetensors file, or not a whole one.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt"):
                pass
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                self._entries: dict[str, Any] = json.loads(file.read(length))
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is no whole safetensors file: {error}") from error
        self._entries.pop("__metadata__", None)
        self._begin = 8 + length

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._entries)

    def describe(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Type, as safetensors calls it, and shape."""
        return self._entries[name]["dtype"], tuple(self._entries[name]["shape"])

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        dtype = next(dtype for dtype, code in CODES.items() if code == entry["dtype"])
        tensor = torch.empty(entry["shape"], dtype=dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._begin + entry["data_offsets"][0])
            read_fully(file, tensor.reshape(-1).view(torch.uint8).numpy().data)
        return tensor


def read_fully(file: Any, buffer: memoryview) -> int:
    """Fill `buffer` as far as the file goes: Linux gives 2 GiB at most at a time. Returns the bytes read."""
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done:])):
        done += count
    return done
