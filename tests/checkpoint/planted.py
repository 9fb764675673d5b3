"""Files with code in them, as somebody might hand them on: any reader that unpickles them creates a file."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megatron_distill.checkpoint.checksum import checksum, text_checksum


class _Call:
    """Becomes a call of `function` when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=4)


def _by_os(marker: Path) -> bytes:
    import os

    return _pickled(_Call(os.system, f"touch {marker}"))


def _by_eval(marker: Path) -> bytes:
    return _pickled(_Call(eval, f"open({str(marker)!r}, 'w')"))


def _nested(marker: Path) -> bytes:
    """Deep within what looks like the metadata of a checkpoint."""
    from torch.distributed.checkpoint.metadata import Metadata

    return _pickled(Metadata({"x": _Call(eval, f"open({str(marker)!r}, 'w')")}, planner_data=_Call(exec, "pass")))


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def _dotted(marker: Path) -> bytes:
    """The name of an allowed module, and through it that of a function that it has imported."""
    name = _text("torch.distributed.checkpoint.metadata") + _text("os.system") + b"\x93"
    return b"\x80\x04" + name + _text(f"touch {marker}") + b"\x85R."


def _through_an_attribute(marker: Path) -> bytes:
    """Replaces how an allowed class sets its state, then lets an object of it be set."""
    kind = _text("torch.distributed.checkpoint.metadata") + _text("TensorProperties") + b"\x93"
    evil = _text("os") + _text("system") + b"\x93"
    change = kind + b"N}" + _text("__setstate__") + evil + b"s\x86b0"
    return b"\x80\x04" + change + kind + b")\x81" + _text(f"touch {marker}") + b"b."


def _oldest_protocol(marker: Path) -> bytes:
    return f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()


def _zip(marker: Path) -> bytes:
    """What torch.save writes today."""
    buffer = io.BytesIO()
    torch.save({"steps": 3}, buffer)
    made = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(made, "w") as out:
        for name in source.namelist():
            out.writestr(name, _by_eval(marker) if name.endswith("data.pkl") else source.read(name))
    return made.getvalue()


def _legacy(marker: Path) -> bytes:
    """What torch.save wrote before it wrote zip files."""
    buffer = io.BytesIO()
    torch.save({"steps": _Call(eval, f"open({str(marker)!r}, 'w')")}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


KINDS: dict[str, Callable[[Path], bytes]] = {
    "os.system": _by_os,
    "eval": _by_eval,
    "nested": _nested,
    "dotted name": _dotted,
    "attribute of a class": _through_an_attribute,
    "oldest protocol": _oldest_protocol,
    "torch zip": _zip,
    "torch legacy": _legacy,
}
"""Content of a file that creates the file `marker` if it is unpickled, by how."""


def plant(path: Path, kind: str, marker: Path) -> None:
    """Write code of a kind into a file; in a checkpoint the checksums are made to fit."""
    path.write_bytes(KINDS[kind](marker))
    if (path.parent / "manifest.json").is_file() and path.name != "manifest.json":
        reseal(path.parent)


def reseal(checkpoint: Path, **changed: Any) -> None:
    """Make the sizes and checksums in a manifest fit its files, and change fields of it."""
    path = checkpoint / "manifest.json"
    values = json.loads(path.read_text()) | changed
    values.pop("checksum", None)
    if "files" not in changed:
        values["files"] = {name: (checkpoint / name).stat().st_size for name in values["files"]}
        values["checksums"] = {name: checksum(checkpoint / name) for name in values["files"]}
    own = text_checksum(json.dumps(values, sort_keys=True))
    path.write_text(json.dumps({"checksum": own} | values))
