"""What a checkpoint says about itself, readable without torch: `manifest.json` in its folder."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape, shape_from_dict

FORMAT = 1
NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checkpoint in numbers."""

    iteration: int
    """Optimizer steps taken."""
    consumed_samples: int
    """Position in the data: the one integer that resuming needs."""
    consumed_tokens: int
    shape: ModelShape
    """The model before pruning."""
    layers: tuple[int, ...]
    """Original indices of the layers it holds."""
    trainable_layers: tuple[int, ...]
    """Of these, the ones with optimizer state."""
    optimizer: str
    dtype: str
    progress: dict[str, Any] = field(default_factory=dict)
    """What the loop counts: FLOPs so far, skipped steps, seconds."""
    sample_order: dict[str, Any] = field(default_factory=dict)
    """What fixes which sample comes when: a run that goes on must have the same."""
    objective: str = ""
    """What it learns from which teacher, in words: a run that goes on must do the same."""
    tokenizer: str | None = None
    """The tokenizer's file, copied into the run folder."""
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes of every file of the checkpoint."""
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write and flush `manifest.json`."""
        path = folder / NAME
        with path.open("w") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder, after checking that its files are all there in full.

    Raises:
        ConfigError: no checkpoint, an incomplete one, or one of a newer format.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} is not a checkpoint: it has no {NAME}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is damaged: it holds no object")
    if values.get("format") != FORMAT:
        raise ConfigError(f"{path} has format {values.get('format')}; this version reads {FORMAT}")
    try:
        values["shape"] = shape_from_dict(values["shape"])
        values["layers"], values["trainable_layers"] = tuple(values["layers"]), tuple(values["trainable_layers"])
        manifest = Manifest(**values)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    for name, size in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).exists() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes"
            raise ConfigError(f"checkpoint {folder} is incomplete: {name} {state}, it should have {size} bytes")
    return manifest


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, None if there is none yet.

    Raises:
        ConfigError: `latest` cannot be read or names a checkpoint that is gone.
    """
    pointer = run / "latest"
    if not pointer.exists():
        return None
    try:
        name = pointer.read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{pointer} cannot be read ({error}); {_way_back(run)}") from error
    folder = run / "checkpoints" / name
    if not name or not folder.is_dir():
        raise ConfigError(f"{pointer} names {name or 'nothing'}, which is not there; put it back, or {_way_back(run)}")
    return folder


def read_latest(run: Path) -> tuple[Path, Manifest] | None:
    """The newest checkpoint of a run folder and what it says about itself, None if there is none yet.

    Raises:
        ConfigError: it is gone or damaged; says how to go on without it.
    """
    folder = latest_checkpoint(run)
    if folder is None:
        return None
    try:
        return folder, read_manifest(folder)
    except ConfigError as error:
        raise ConfigError(f"{error}; {_way_back(run)}") from error


def _way_back(run: Path) -> str:
    return f"write the name of another one of {run / 'checkpoints'} into {run / 'latest'}, or remove that to start anew"


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a user means by a run folder or by a checkpoint folder.

    Raises:
        ConfigError: neither is there.
    """
    if (path / NAME).exists():
        return path
    if not path.exists():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"there is no checkpoint or run at {path}{hint}")
    folder = latest_checkpoint(path)
    if folder is None:
        raise ConfigError(f"{path} holds no finished checkpoint; give a run folder with a file `latest`")
    return folder


def check_same_model(manifest: Manifest, shape: ModelShape, where: str) -> None:
    """Raise ConfigError, naming the first difference, unless the checkpoint holds weights for `shape`."""
    ignored = {"max_position_embeddings", "vocab_size", "init_method_std"}
    for f in dataclasses.fields(ModelShape):
        theirs, ours = getattr(manifest.shape, f.name), getattr(shape, f.name)
        if f.name not in ignored and theirs != ours:
            raise ConfigError(
                f"{where} holds another model: its {f.name} is {theirs}, this run's is {ours}; "
                "give the same model flags as the run that wrote it"
            )
