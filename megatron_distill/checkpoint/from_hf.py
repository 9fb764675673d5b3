"""Public models as our checkpoints: read tensor by tensor, renamed by the family's rules, written tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.models.families.hf_config import HFConfig
from megatron_distill.models.families.registry import Family, find_model_type

from .folder import publish_weights
from .generation_defaults import GenerationDefaults
from .hf_folder import HFWeights
from .manifest import Manifest
from .storage import write_tensors
from .tokenizer_files import FILES, FOLDER, all_files, check_readable, checksums_of, fingerprint_if_read
from .written_aside import written_aside

_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float32}
"""What weights become; fp16 is widened, because neither bf16 nor training in fp16 would keep it."""
_HEADS = ("lm_head.weight", "embed_out.weight")
"""What output matrices are called."""


class Source:
    """A Hugging Face model, understood and found complete, none of its weights read yet.

    Raises:
        ConfigError: no model, one that no family reads, or weights that are not what its config.json says.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}")
        config = HFConfig.read(folder)
        self.family: Family = find_model_type(config.values["model_type"], config.where)
        if config.mapping("quantization_config"):
            raise ConfigError(f"{config.where} has a quantization_config; quantised weights can't be read")
        self.weights = HFWeights(folder)
        config = HFConfig(config.values, config.where, tensors=len(self.weights.names()))
        self.generation = GenerationDefaults.read(folder)
        self.shape = self.family.read_config(config)
        self.layers = tuple(range(self.shape.num_layers))
        self.rules = {rule.ours: rule for rule in self.family.rules(self.shape, self.layers)}
        self._names = self._find_names()
        self._check_tied()
        self.dtype = self._check_tensors()
        """Of our checkpoint: that of the weights, fp32 if they are of several."""

    def read(self, ours: str) -> Tensor:
        """One tensor of ours, whole, made of theirs."""
        rule = self.rules[ours]
        return rule.join(*(self.weights.read(self._names[name]).to(self.dtype) for name in rule.theirs))

    def _check_tensors(self) -> torch.dtype:
        found = set()
        for rule in self.rules.values():
            for name, wanted in rule.theirs.items():
                kind, shape = self.weights.describe(self._names[name])
                where = f"{self.weights.folder}: {name}"
                if shape != wanted:
                    raise ConfigError(
                        f"{where} has shape {list(shape)}, but by config.json it must have {list(wanted)}"
                    )
                if kind not in _TYPES:
                    raise ConfigError(f"{where} is of type {kind}; known: {', '.join(_TYPES)}, and no quantised ones")
                found.add(_TYPES[kind])
        return found.pop() if len(found) == 1 else torch.float32

    def _find_names(self) -> dict[str, str]:
        """The folder's name of every tensor that is needed; old folders leave out the base model's prefix."""
        there = self.weights.names()
        found: dict[str, str] = {}
        for rule in self.rules.values():
            for name in rule.theirs:
                short = name.removeprefix(self.family.prefix)
                if name not in there and short not in there:
                    raise ConfigError(f"{self.weights.folder} lacks the tensor {name} of a {self.family.architecture}")
                found[name] = name if name in there else short
        unknown = sorted(n for n in there - set(found.values()) if not self._may_be_ignored(n))
        if unknown:
            more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
            raise ConfigError(
                f"{self.weights.folder} has the tensor {unknown[0]}{more}, for which a {self.family.architecture} "
                "with this config.json has no place"
            )
        return found

    def _check_tied(self) -> None:
        """Refuse an output matrix that is dropped as a copy of the embedding and is none."""
        copies = [name for name in _HEADS if name in self.weights.names()] if self.shape.tied else []
        table = next(iter(self.rules["embedding.word_embeddings.weight"].theirs))
        for name in copies:
            if not torch.equal(self.weights.read(name), self.weights.read(self._names[table])):
                raise ConfigError(
                    f"{self.weights.folder}: config.json ties the output matrix to the embedding, but {name} is "
                    "another matrix; set tie_word_embeddings to false if it is the model's own, or remove it"
                )

    def _may_be_ignored(self, name: str) -> bool:
        copy_of_table = self.shape.tied and name in _HEADS
        return copy_of_table or name.endswith(self.family.ignored)


def import_model(folder: Path, out: Path, check: Callable[[Path], None] | None = None) -> Path:
    """Write a Hugging Face model as a run folder with one checkpoint, from which runs start with `--load`.

    `check` gets the checkpoint before the run has its name, which it never gets if that raises. Returns the
    checkpoint's folder.

    Raises:
        ConfigError: nothing that can be read, a tokenizer that is damaged or larger than the model's vocabulary, or
            `out` is in use.
    """
    with written_aside(out) as run:
        checkpoint = _write_run(folder, run)
        if check is not None:
            check(checkpoint)
    return out / checkpoint.relative_to(run)


def _write_run(folder: Path, run: Path) -> Path:
    source = Source(folder)
    check_public_tokenizer(folder, source)
    tokenizer = _copy_tokenizer(folder, run / FOLDER)
    manifest = Manifest(
        iteration=0,
        consumed_samples=0,
        consumed_tokens=0,
        shape=source.shape,
        layers=source.layers,
        trainable_layers=(),
        optimizer="none",
        dtype=str(source.dtype).removeprefix("torch."),
        tokenizer=tokenizer,
        tokenizer_fingerprint=None if tokenizer is None else fingerprint_if_read(run / tokenizer),
        tokenizer_checksums=checksums_of(run, tokenizer),
        generation=source.generation.to_manifest(),
        origin=(str(folder),),
    )
    shapes = {rule.ours: rule.shape for rule in source.rules.values()}
    return publish_weights(run, manifest, lambda partial: write_tensors(partial, shapes, source.dtype, source.read))


def check_public_tokenizer(folder: Path, source: Source) -> None:
    """Open the folder's tokenizer, if it has one.

    Raises:
        ConfigError: it is damaged, or has more tokens than the model.
    """
    from .inference import load_fitting_tokenizer

    check_readable(str(folder))
    if any((folder / name).is_file() for name in FILES):
        load_fitting_tokenizer(folder, source.shape.vocab_size, folder)


def _copy_tokenizer(folder: Path, out: Path) -> str | None:
    if not any((folder / name).is_file() for name in FILES):
        return None
    files = [file for file in all_files(folder) if file.is_file()]
    out.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, out / file.name)
    names = {file.name for file in files}
    model = "tokenizer.model" if "tokenizer.json" not in names and "tokenizer.model" in names else ""
    return (Path(FOLDER) / model).as_posix()
