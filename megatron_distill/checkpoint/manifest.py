"""What a checkpoint says about itself, readable without torch: `manifest.json` in its folder."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json
from megatron_distill.config.model import ModelShape
from megatron_distill.config.regular_file import check_regular

from .checksum import text_checksum

FORMAT = 3
"""Of what is written. Formats 1, which had no checksums, and 2, which had no identities, are read too."""
NAME = "manifest.json"
_STEP = re.compile(r"iter_(\d+)", re.ASCII)
DTYPES = ("float32", "bfloat16")
"""Of weights, as a manifest has them."""
_LARGEST_SIZE = 1 << 32
"""No width, depth or vocabulary is larger."""
_LARGEST = 1 << 62
"""Counts are below this."""


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
    objective: dict[str, Any] | str = field(default_factory=dict)
    """What it learns from which teacher: a resumed run must do the same. In words in formats 1 and 2."""
    schedule: dict[str, int] = field(default_factory=dict)
    """Steps of the whole run and of its warm-up, which the learning rate follows."""
    tokenizer: str | None = None
    """The path of the tokenizer within the run folder, which has a copy; absolute in format 1."""
    tokenizer_fingerprint: str | None = None
    """Identity of the tokenizer's vocabulary (data/tokenizer.py); None where it is not known."""
    tokenizer_checksums: dict[str, str] = field(default_factory=dict)
    """CRC-32 of each file of the tokenizer's copy, by name."""
    generation: dict[str, Any] = field(default_factory=dict)
    """What a public model said about generating text (`GenerationDefaults.to_manifest`)."""
    origin: tuple[str, ...] = ()
    """Where the weights came from before training: the run or model, and where that one's came from, and so on."""
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes of every file of the checkpoint."""
    checksums: dict[str, str] = field(default_factory=dict)
    """CRC-32 of each."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Identity of the stored tensors, wherever the checkpoint lies: SHA-256 of the checksums of their files."""
        tensors = sorted(name for name in self.files if name.endswith(".distcp"))
        identity: list[Any] = [[name, self.files[name], self.checksums.get(name)] for name in tensors]
        if not self.checksums:  # format 1: the best there is
            identity += [self.iteration, self.consumed_tokens]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write and flush `manifest.json`."""
        path = folder / NAME
        values = dataclasses.asdict(self)
        with path.open("w") as file:
            json.dump({"checksum": _own_checksum(values)} | values, file, indent=1)
            file.flush()
            os.fsync(file.fileno())


def checkpoint_name(step: int) -> str:
    """The name of the folder of the checkpoint after so many steps."""
    return f"iter_{step:07d}"


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None for a name that this program does not give, as of a copy."""
    found = _STEP.fullmatch(folder.name)
    return int(found[1]) if found and folder.name == checkpoint_name(int(found[1])) else None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder, after checking that its files are all there in full.

    Raises:
        ConfigError: no checkpoint, an incomplete one, or one of a newer format.
    """
    path = folder / NAME
    try:
        values = read_json(path, dict[str, Any])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{folder} is not a checkpoint: it has no {NAME}") from error
    known = values.get("format")
    if type(known) is not int or not 1 <= known <= FORMAT:
        raise ConfigError(f"{path} has format {str(known)[:20]}; this version reads 1 to {FORMAT}")
    if known > 1 and values.pop("checksum", None) != _own_checksum(values):
        raise ConfigError(f"{path} is damaged: its content is not what was written")
    try:
        manifest = msgspec.convert(values, Manifest)
    except (msgspec.ValidationError, ConfigError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {str(error)[:1].lower()}{str(error)[1:]}") from error
    if wrong := _out_of_range(manifest):
        raise ConfigError(f"{path} is damaged: {wrong}")
    step = _STEP.fullmatch(folder.name)
    if step and int(step[1]) != manifest.iteration:
        raise ConfigError(f"{path} is that of another checkpoint, of step {manifest.iteration}")
    for name, size in manifest.files.items():
        found = _size(folder / name)
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes"
            raise ConfigError(f"checkpoint {folder} is incomplete: {name} {state}, it should have {size} bytes")
    return manifest


def _out_of_range(manifest: Manifest) -> str:
    """What no checkpoint can have, "" if there is nothing."""
    counts = ("iteration", "consumed_samples", "consumed_tokens")
    for name in counts:
        if not 0 <= getattr(manifest, name) < _LARGEST:
            return f"its {name} is {str(getattr(manifest, name))[:40]}"
    if wrong := _impossible_shape(manifest.shape):
        return wrong
    depth, layers = manifest.shape.num_layers, manifest.layers
    if not layers or any(not 0 <= i < depth for i in layers) or list(layers) != sorted(set(layers)):
        return f"it holds layers {list(layers)[:20]} of a model of {depth}"
    if not set(manifest.trainable_layers) <= set(layers):
        return f"it trains layers {list(manifest.trainable_layers)[:20]}, which it does not hold"
    if manifest.dtype not in DTYPES:
        return f"its dtype is {manifest.dtype[:40]}, not one of {', '.join(DTYPES)}"
    for name, size in manifest.files.items():
        if name in ("", ".", "..") or Path(name).name != name or size < 0:
            return f"it lists the file {name[:80]!r} of {str(size)[:40]} bytes"
    if manifest.checksums and manifest.checksums.keys() != manifest.files.keys():
        return "its checksums are not those of its files"
    if manifest.format == FORMAT and manifest.tokenizer is not None and not _is_within(manifest.tokenizer):
        return f"its tokenizer {manifest.tokenizer[:80]!r} is outside of its run"
    if any(Path(name).name != name for name in manifest.tokenizer_checksums):
        return "it lists a file of the tokenizer that is outside of its run"
    return ""


def _impossible_shape(shape: ModelShape) -> str:
    sizes = {f.name: getattr(shape, f.name) for f in dataclasses.fields(shape) if f.type == "int"}
    wrong = next((name for name, size in sizes.items() if not 1 <= size <= _LARGEST_SIZE), None)
    if wrong:
        return f"its {wrong} is {str(sizes[wrong])[:40]}"
    groups = shape.num_query_groups
    divides = shape.block is not None or shape.hidden_size % shape.num_attention_heads == 0
    if groups < 1 or shape.num_attention_heads % groups or shape.head_dim < 1 or not divides:
        return f"{shape.num_attention_heads} heads, {groups} of keys, do not fit a width of {shape.hidden_size}"
    return "" if shape.padded_vocab_size >= shape.vocab_size else "its padded_vocab_size is below its vocab_size"


def _is_within(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _size(path: Path) -> int | None:
    """Bytes of a regular file, None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _own_checksum(values: dict[str, Any]) -> str:
    return text_checksum(json.dumps(values, sort_keys=True))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, None if there is none yet.

    Raises:
        ConfigError: `latest` cannot be read or names a checkpoint that is gone.
    """
    pointer = run / "latest"
    try:
        check_regular(pointer)
        name = pointer.read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        if pointer.is_symlink():
            raise ConfigError(f"{pointer} is a link to nothing") from error
        return None
    except OSError as error:
        raise ConfigError(f"{pointer} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{pointer} is damaged: it is not UTF-8") from error
    if name and not _STEP.fullmatch(name):
        raise ConfigError(f"{pointer} is damaged: {name[:80]!r} is not the name of a checkpoint, such as iter_0000100")
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
    if os.path.lexists(run / "latest"):
        raise none_is_whole(run, str(first) if first else f"{run / 'checkpoints'} is empty")
    return None


def candidates(run: Path) -> list[Path]:
    """The checkpoints from which a run may go on, best first: the one that `latest` names, then the newest.

    None if there is no `latest`, which is how a user says that the run is to start anew.
    """
    try:
        name = (run / "latest").read_text(errors="replace").strip()
    except OSError:  # it cannot be read; `go_back_to_whole` says so
        if not os.path.lexists(run / "latest"):
            return []
        name = ""
    steps = {p: int(match[1]) for p in (run / "checkpoints").glob("iter_*") if (match := _STEP.fullmatch(p.name))}
    found = sorted(steps, key=lambda folder: (steps[folder], folder.name), reverse=True)
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
    if os.path.lexists(path / NAME):
        return path
    if not os.path.lexists(path):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"there is no checkpoint or run at {path}{hint}")
    folder = latest_checkpoint(path)
    if folder is None and (path / "config.json").is_file():
        raise ConfigError(
            f"{path} is a Hugging Face folder, and a run starts from checkpoints of its own kind; convert it with "
            f"`python tools/convert_checkpoint.py from-hf {path} RUN` and give RUN"
        )
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
