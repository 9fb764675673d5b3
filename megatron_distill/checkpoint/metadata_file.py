"""megatron-core's small files of a checkpoint, read without executing anything: `.metadata`, `common.pt` and
`metadata.json`.

A pickle names classes and functions, and unpickling calls them, so a checkpoint from somebody else could run code.
Here a name that the format does not have ends the reading. The names that it has stand for records without behaviour,
made anew for each reading. The real objects of torch.distributed.checkpoint are then built from checked numbers and
names.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

METADATA = ".metadata"
COMMON = "common.pt"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8)
}
_RECORDS = {
    "pathlib": ("Path", "PosixPath", "WindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath"),
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata"),
        *("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.planner": (
        "SavePlan",
        "WriteItem",
        "WriteItemType",
        "TensorWriteData",
        "BytesIOWriteData",
    ),
}
"""Every class and function that megatron-core's format names, by module."""


class SafeReader(FileSystemReader):
    """torch's reader of a checkpoint, but for its `.metadata`, which is read by `read_metadata_file`, once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._metadata: Metadata | None = None
        self._folder = folder

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Where every tensor of the checkpoint is."""
        if self._metadata is None:
            self._metadata = read_metadata_file(self._folder)
            self._metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return self._metadata


def read_metadata_file(folder: Path) -> Metadata:
    """What `.metadata` says of the tensors of a checkpoint.

    Raises:
        ConfigError: it cannot be read, is damaged, or names anything that the format does not have.
    """
    path = folder / METADATA
    try:
        with path.open("rb") as file:
            found = _Unpickler(file).load()
        return _metadata(found)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever bytes that are no such pickle make of it
        raise ConfigError(f"{path} is damaged, or not from this program: {_first_line(error)}") from error


def read_steps(folder: Path) -> float:
    """Updates that the optimizer of a checkpoint has made, from its `common.pt`.

    Raises:
        ConfigError: it cannot be read or is damaged.
    """
    path = folder / COMMON
    try:
        common = torch.load(path, map_location="cpu", weights_only=True)
        steps = common.get("steps", 0.0)  # weights alone have none
        if type(steps) not in (int, float) or not 0 <= steps < math.inf:
            raise ValueError("it does not count the updates")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # as above
        raise ConfigError(f"{path} is damaged, or not from this program: {_first_line(error)}") from error
    return steps


def check_backend(folder: Path) -> None:
    """Refuse, from `metadata.json`, what megatron-core did not write in the format that is read here.

    Raises:
        ConfigError: the file is missing, damaged, or names another format.
    """
    path = folder / "metadata.json"
    expected = {
        "sharded_backend": "torch_dist",
        "sharded_backend_version": 1,
        "common_backend": "torch",
        "common_backend_version": 1,
    }
    try:
        stored = read_json(path, dict[str, str | int])
    except FileNotFoundError as error:
        raise ConfigError(f"checkpoint {folder} is incomplete: metadata.json is missing") from error
    for name, value in expected.items():
        if stored.pop(name, value) != value:
            raise ConfigError(f"{path} is damaged, or not from this program: its {name} is not {value}")
    if stored:
        raise ConfigError(f"{path} is damaged, or not from this program: it has the unknown key {min(stored)!r}")


class _Unpickler(pickle.Unpickler):
    """Knows the names of the format and no others."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._records: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A record, or the name of a type of numbers.

        Raises:
            UnpicklingError: the format has no such name.
        """
        if module == "torch" and name in _DTYPES:
            return name
        if name not in _RECORDS.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}".encode("ascii", "replace").decode()[:200])
        # One class for each reading, because a pickle can set attributes of what it names.
        return self._records.setdefault((module, name), type(name, (_Record,), {}))


class _Record:
    """Holds what an object was made of."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __new__(cls, *args: Any) -> _Record:
        """As unpickling makes objects: without calling `__init__`."""
        made = super().__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _fields(record: Any, kind: str) -> dict[str, Any]:
    if not isinstance(record, _Record) or type(record).__name__ != kind or not isinstance(record.state, dict):
        raise ValueError(f"it has no {kind} where one belongs")
    return record.state


def _metadata(found: Any) -> Metadata:
    state = _fields(found, "Metadata")
    described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {
        str(name): _tensor(value) for name, value in state["state_dict_metadata"].items()
    }
    storage: dict[MetadataIndex, Any] = {}
    for index, info in state["storage_data"].items():
        where = _fields(index, "MetadataIndex")
        offset = where.get("offset")
        position = where.get("index")
        key = MetadataIndex(
            _text(where["fqn"]),
            None if offset is None else _size(offset),
            None if position is None else _number(position),
        )
        storage[key] = _place(_fields(info, "_StorageInfo"))
    return Metadata(described, storage_data=storage)


def _tensor(value: Any) -> TensorStorageMetadata:
    """Only tensors have a place in the format: torch would unpickle objects."""
    state = _fields(value, "TensorStorageMetadata")
    properties = state["properties"]
    if not isinstance(properties, _Record) or type(properties).__name__ != "TensorProperties":
        raise ValueError("a tensor has no properties")
    chunks = []
    for chunk in state["chunks"]:
        parts = _fields(chunk, "ChunkStorageMetadata")
        chunks.append(ChunkStorageMetadata(_size(parts["offsets"]), _size(parts["sizes"])))
    return TensorStorageMetadata(TensorProperties(_DTYPES[properties.state[0]]), _size(state["size"]), chunks)


def _place(state: dict[str, Any]) -> _StorageInfo:
    name = _text(state["relative_path"])
    if Path(name).name != name or state.get("transform_descriptors"):
        raise ValueError(f"a tensor is said to be in {name!r}")
    return _StorageInfo(name, _number(state["offset"]), _number(state["length"]))


def _size(record: Any) -> torch.Size:
    if not isinstance(record, _Record) or type(record).__name__ != "Size":
        raise ValueError("it has no shape where one belongs")
    (numbers,) = record.args
    return torch.Size([_number(number) for number in numbers])


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"it has {str(value)[:40]} where a number belongs")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("it has no name where one belongs")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
