"""The weights of a Hugging Face folder, one tensor at a time; nothing of the folder is ever executed."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

from .safetensors_file import CODES, SafetensorsFile

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class _Index:
    weight_map: dict[str, str]
    """The file of every tensor."""


class HFWeights:
    """Tensors by name. Those of safetensors are read when asked for; of old `.bin` shards, which are pickles of nothing
    but tensors, one is held at a time.

    Raises:
        ConfigError: no weights, a shard that is missing, damaged or not what the index says, a pickle with code in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: tuple[Path, Any] | None = None
        index = next((folder / name for name in _INDEXES if (folder / name).is_file()), None)
        single = next((folder / name for name in _SINGLE if (folder / name).is_file()), None)
        if single is not None and (index is None or single.suffix == ".safetensors"):
            self._where = {name: single for name in self._names(single)}
        elif index is not None:
            self._where = self._read_index(index)
        else:
            raise ConfigError(f"{folder} has no weights: neither {' nor '.join(_SINGLE)}, nor an index of shards")

    def names(self) -> set[str]:
        """All tensors of the folder."""
        return set(self._where)

    def describe(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Type, as safetensors calls it (F32, BF16, F16, I8, ...), and shape of a tensor, without reading it."""
        path = self._where[name]
        opened = self._reader(path)
        if isinstance(opened, SafetensorsFile):
            return opened.describe(name)
        tensor = opened[name] if name in opened else self.read(name)
        return CODES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the dtype of the file."""
        path = self._where[name]
        try:
            return self._reader(path)[name]
        except (OSError, KeyError) as error:
            raise ConfigError(f"{path} is damaged: it has no whole tensor {name} ({error})") from error

    def _names(self, path: Path) -> list[str]:
        return list(self._reader(path).keys())

    def _read_index(self, path: Path) -> dict[str, Path]:
        where = {name: self.folder / Path(file).name for name, file in read_json(path, _Index).weight_map.items()}
        shards = sorted(set(where.values()))
        missing = next((shard.name for shard in shards if not shard.is_file()), None)
        if missing is not None:
            raise ConfigError(f"{self.folder} lacks the shard {missing}, which {path.name} names")
        for shard in (s for s in shards if s.suffix == ".safetensors"):
            held = set(self._names(shard))
            for name, file in where.items():
                if file == shard and name not in held:
                    raise ConfigError(f"{shard} lacks the tensor {name}, which {path.name} says it holds")
        return where

    def _reader(self, path: Path) -> Any:
        if self._open is None or self._open[0] != path:
            self._open = None  # before the next one is opened
            self._open = (path, SafetensorsFile(path) if path.suffix == ".safetensors" else _open_bin(path))
        return self._open[1]


def _open_bin(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors and was not opened, because a pickle can run code; "
            "convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {(str(error).splitlines() or ['it is empty'])[0]}") from error
    if not isinstance(loaded, dict) or not all(isinstance(x, Tensor) for x in loaded.values()):
        raise ConfigError(f"{path} holds no dictionary of tensors")
    return loaded


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
