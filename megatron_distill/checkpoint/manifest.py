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

from .checksum import text_checksum

FORMAT = 2
"""Of what is written; format 1, which had no checksums, is read too."""
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
    """The tokenizer's path: within the run folder, where a copy lies, or absolute in checkpoints of before."""
    origin: tuple[str, ...] = ()
    """Where the weights came from before training: the run or model, and where that one's came from, and so on."""
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes of every file of the checkpoint."""
    checksums: dict[str, str] = field(default_factory=dict)
    """CRC-32 of each."""
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write and flush `manifest.json`."""
        path = folder / NAME
        values = dataclasses.asdict(self)
        with path.open("w") as file:
            json.dump({"checksum": _own_checksum(values)} | values, file, indent=1)
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
    if values.get("format") not in (1, FORMAT):
        raise ConfigError(f"{path} has format {values.get('format')}; this version reads 1 and {FORMAT}")
    if values["format"] == FORMAT and values.pop("checksum", None) != _own_checksum(values):
        raise ConfigError(f"{path} is damaged: its content is not what was written")
    number = folder.name.removeprefix("iter_")
    if number.isdigit() and number != folder.name and int(number) != values.get("iteration"):
        raise ConfigError(f"{path} is that of another checkpoint, of step {values.get('iteration')}")
    try:
        values["shape"] = shape_from_dict(values["shape"])
        values["layers"], values["trainable_layers"] = tuple(values["layers"]), tuple(values["trainable_layers"])
        values["origin"] = tuple(values.get("origin", ()))
        manifest = Manifest(**values)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    for name, size in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).exists() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes"
            raise ConfigError(f"checkpoint {folder} is incomplete: {name} {state}, it should have {size} bytes")
    return manifest


def _own_checksum(values: dict[str, Any]) -> str:
    return text_checksum(json.dumps(values, sort_keys=True))


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
        raise ConfigError(f"{pointer} cannot be read ({error})") from error
    folder = run / "checkpoints" / name
    if not name or not folder.is_dir():
        raise ConfigError(f"{pointer} names {name or 'nothing'}, which is not there")
    return folder


def read_latest(run: Path) -> tuple[Path, Manifest] | None:
    """The newest checkpoint of a run folder that is complete, and what it says about itself; None if there is none yet.

    Raises:
        ConfigError: none is complete; says what is wrong with the newest.
    """
    first: ConfigError | None = None
    for folder in candidates(run):
        try:
            return folder, read_manifest(folder)
        except ConfigError as error:
            first = first or error
    if (run / "latest").exists():
        raise none_is_whole(run, str(first) if first else f"{run / 'checkpoints'} is empty")
    return None


def candidates(run: Path) -> list[Path]:
    """The checkpoints from which a run may go on, best first: the one that `latest` names, then the newest.

    None if there is no `latest`, which is how a user says that the run is to start anew.
    """
    try:
        name = (run / "latest").read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:  # it cannot be read; `go_back_to_whole` says so
        name = ""
    found = sorted((run / "checkpoints").glob("iter_*"), reverse=True)
    return sorted(found, key=lambda folder: folder.name != name)


def none_is_whole(run: Path, why: str) -> ConfigError:
    """What to say when a run cannot go on."""
    return ConfigError(
        f"{why}; no checkpoint of {run} is whole: bring one back, or remove {run / 'latest'} to start anew"
    )


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
