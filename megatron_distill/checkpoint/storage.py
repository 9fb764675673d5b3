"""megatron-core's torch_dist format, tensor by tensor: files in which each tensor is what torch.save makes of it, one
after another, and `.metadata`, which says what lies where. None of it needs a process group.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.serialization import get_crc32_options, set_crc32_options

from megatron_distill.config.error import ConfigError

from .ahead import one_ahead
from .checksum import ChecksummedFile
from .folder import Written
from .metadata_file import read_metadata_file
from .safetensors_file import read_fully

Produce = Callable[[str], Tensor]
"""Makes a tensor when it is its turn to be written."""


def write_items(path: Path, key: str, content: tuple[list[Any], list[Any]]) -> tuple[list[WriteResult], Written]:
    """Write what megatron-core planned for a file: where everything lies in it, and the file's size and checksum.

    `content` are (write item, bytes) and (write item, tensor on the CPU). The file is on disk when this returns.
    """
    raw, tensors = content
    results = []
    with ChecksummedFile(path) as file, _no_second_checksum():
        for item, data in raw:
            begun = file.tell()
            file.write(data.getbuffer())
            results.append(_result(item.index, key, begun, file.tell()))
        for item, tensor in tensors:
            begun = file.tell()
            torch.save(tensor, file)  # type: ignore[arg-type]
            results.append(_result(item.index, key, begun, file.tell()))
    return results, Written(file.size, file.checksum)


def write_tensors(
    folder: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, produce: Produce
) -> dict[str, Written]:
    """Whole tensors as a checkpoint that dist_checkpointing.load reads; two at a time are in memory.

    Returns the file that holds them, by its name. Raises what `produce` raises, and OSError when the
    disk is full.
    """
    from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config

    name = "__0_0.distcp"
    results = []
    with ChecksummedFile(folder / name) as file, _no_second_checksum():
        for fqn, tensor in one_ahead((fqn, _compact(produce(fqn).to(dtype))) for fqn in shapes):
            begun = file.tell()
            torch.save(tensor, file)  # type: ignore[arg-type]
            results.append(_result(MetadataIndex(fqn, torch.Size([0] * tensor.dim())), name, begun, file.tell()))
    described = {fqn: _describe(torch.Size(shape), dtype) for fqn, shape in shapes.items()}
    FileSystemWriter(folder).finish(Metadata(described), [results])  # type: ignore[arg-type]
    torch.save({}, folder / "common.pt")
    save_config(CheckpointingConfig("torch_dist", 1), str(folder))
    return {name: Written(file.size, file.checksum)}


class TensorReader:
    """The tensors of a checkpoint, whole, one at a time, however many ranks wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        metadata = read_metadata_file(folder)
        self._described = metadata.state_dict_metadata
        self._where: dict[str, list[tuple[Any, _StorageInfo]]] = {}
        for index, info in (metadata.storage_data or {}).items():
            self._where.setdefault(index.fqn, []).append((index, info))

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor on the CPU.

        Raises:
            ConfigError: the checkpoint has none of that name and shape.
        """
        described = self._described.get(name)
        if not isinstance(described, TensorStorageMetadata) or tuple(described.size) != shape:
            found = f"of shape {list(described.size)}" if isinstance(described, TensorStorageMetadata) else "not there"
            raise ConfigError(f"{self.folder}: the tensor {name} is {found}, it should have shape {list(shape)}")
        parts = [(tuple(index.offset or ()), self._load(name, info)) for index, info in self._where.get(name, [])]
        whole = parts[0][1] if len(parts) == 1 else torch.empty(shape, dtype=described.properties.dtype)
        try:
            for offset, part in parts if len(parts) > 1 else []:
                region = tuple(slice(o, o + n) for o, n in zip(offset, part.shape, strict=True))
                whole[region] = part
        except (ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(f"{self.folder}: the parts of the tensor {name} do not fit together") from error
        if not parts or tuple(whole.shape) != shape:
            raise ConfigError(f"{self.folder}: the tensor {name} has shape {list(whole.shape)}, not {list(shape)}")
        return whole

    def _load(self, name: str, info: _StorageInfo) -> Tensor:
        where = self.folder / info.relative_path
        try:
            with _Slice(where, info.offset, info.length) as part:
                loaded = torch.load(part, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
        except Exception as error:  # whatever bytes that are no tensor make of it
            raise ConfigError(f"{where} is damaged: it has no tensor {name} where it should be") from error
        if not isinstance(loaded, Tensor):
            raise ConfigError(f"{where} is damaged: {name} is no tensor")
        return loaded


class _Slice(io.RawIOBase):
    """A part of a file as a file, from which torch.load reads straight into the tensor."""

    def __init__(self, path: Path, begin: int, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._begin, self._length, self._at = begin, length, 0

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        self._file.seek(self._begin + self._at)
        count = read_fully(self._file, view)
        self._at += count
        return count


@contextmanager
def _no_second_checksum() -> Iterator[None]:
    """torch.save computes one of every tensor, by itself half of the time that writing takes; nothing reads it."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)


def _describe(size: torch.Size, dtype: torch.dtype) -> TensorStorageMetadata:
    chunk = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
    return TensorStorageMetadata(TensorProperties(dtype), size, [chunk])


def _compact(tensor: Tensor) -> Tensor:
    """torch.save writes all of the storage that a view is of."""
    is_view = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if is_view else tensor.contiguous()


def _result(index: Any, key: str, begun: int, end: int) -> WriteResult:
    info = _StorageInfo(key, begun, end - begun)
    return WriteResult(index=index, size_in_bytes=end - begun, storage_data=info)
