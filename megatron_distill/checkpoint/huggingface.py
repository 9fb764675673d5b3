"""Our checkpoints as Hugging Face folders; models/families says which tensor is which."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.json_file import read_json
from megatron_distill.models.families import Family, find_exported
from megatron_distill.models.families.rules import Rule

from .ahead import one_ahead
from .folder import flush
from .generation_defaults import IDS, NAME, GenerationDefaults
from .manifest import Manifest
from .model_card import PROVENANCE, model_card, provenance
from .safetensors_file import write_safetensors
from .storage import TensorReader
from .tokenizer_files import FILES, find_tokenizer
from .verify import check_whole
from .written_aside import written_aside

SHARD_BYTES = 4 << 30
"""A safetensors file of an export is no larger, unless one tensor is."""


def export(folder: Path, manifest: Manifest, out: Path, check: Callable[[Path], None] | None = None) -> None:
    """Write a checkpoint as a Hugging Face folder: weights in shards, configuration, tokenizer, model card.

    The checkpoint is read whole and compared with its checksums first. Tensors are read and written one by one. The
    folder gets its name when it is complete and `check`, which is given it, has not raised. It takes the place of an
    older export; files of others that lie in that are kept.

    Raises:
        ConfigError: the checkpoint or its tokenizer is damaged, or `out` is something else than an export.
    """
    check_whole(folder)
    with written_aside(out, may_replace=_is_export, replaced=_is_exported) as partial:
        _write(folder, manifest, partial, out.resolve().name)
        if check is not None:
            check(partial)


def _is_export(folder: Path) -> bool:
    """Whether we have written it; raises ConfigError if that cannot be read."""
    path = folder / "config.json"
    return path.is_file() and PROVENANCE in read_json(path, dict[str, Any])


def _is_exported(name: str) -> bool:
    """Whether an export has a file of that name."""
    code = name.endswith("_palm_paper.py")
    named = name in ("config.json", NAME, "README.md", "model.safetensors.index.json", *FILES)
    return named or code or (name.startswith("model") and name.endswith(".safetensors"))


def _write(folder: Path, manifest: Manifest, out: Path, name: str) -> None:
    shape, layers, dtype = manifest.shape, manifest.layers, getattr(torch, manifest.dtype)
    family = find_exported(shape)
    ends, generation = _write_tokenizer(find_tokenizer(folder, manifest), out), None
    if manifest.generation:
        kept = GenerationDefaults.from_manifest(manifest.generation)
        ends, generation = kept.ids, kept.generation
    _write_weights(TensorReader(folder), family.rules(shape, layers), dtype, out)
    for file in _code(family):
        shutil.copyfile(file, out / file.name)
    config = {"architectures": [family.architecture], "model_type": family.model_type, "dtype": manifest.dtype}
    config |= family.write_config(shape, layers) | ends | {PROVENANCE: provenance(manifest)}
    if generation is not None or not manifest.generation:  # else transformers makes it of config.json, as it did
        (out / NAME).write_text(json.dumps(ends if generation is None else generation, indent=1))
    has_tokenizer = (out / "tokenizer_config.json").is_file()
    card = model_card(name, manifest, has_code=bool(family.code), has_tokenizer=has_tokenizer)
    (out / "README.md").write_text(card)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    flush(out)


def load_exported(folder: Path, family: Family, **options: Any) -> Any:
    """The model of a Hugging Face folder as transformers runs it; no file of the folder is executed.

    A family that transformers does not know is run by the files that we export, not by those that lie there.
    """
    if not family.code:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **options)
    return model_class(family).from_pretrained(folder, **options)


def model_class(family: Family) -> Any:
    """The class of a family that travels with its exports."""
    package = family.code.rpartition(".")[2]
    return getattr(importlib.import_module(f"{family.code}.modeling_{package}"), family.architecture)


def _code(family: Family) -> list[Path]:
    if not family.code:
        return []
    folder = Path(str(importlib.import_module(family.code).__file__)).parent
    return sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")


def _write_weights(reader: TensorReader, rules: list[Rule], dtype: torch.dtype, out: Path) -> None:
    shards = _shards(rules, dtype.itemsize)
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        last = len(shards)
        name = "model.safetensors" if last == 1 else f"model-{number:05d}-of-{last:05d}.safetensors"
        described = {theirs: size for rule in shard for theirs, size in rule.theirs.items()}
        where |= dict.fromkeys(described, name)
        write_safetensors(out / name, described, dtype, one_ahead(_cut_all(reader, shard)))
    if len(shards) > 1:
        total = sum(torch.Size(size).numel() for rule in rules for size in rule.theirs.values()) * dtype.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _shards(rules: list[Rule], itemsize: int) -> list[list[Rule]]:
    shards: list[list[Rule]] = [[]]
    size = 0
    for rule in rules:
        own = torch.Size(rule.shape).numel() * itemsize
        if shards[-1] and size + own > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(rule)
        size += own
    return shards


def _cut_all(reader: TensorReader, rules: list[Rule]) -> Iterator[tuple[str, Tensor]]:
    for rule in rules:
        pieces = rule.cut(reader.read(rule.ours, rule.shape))
        yield from ((name, piece.contiguous()) for name, piece in zip(rule.theirs, pieces, strict=True))


def _name_class(out: Path) -> None:
    """Say how a tokenizer.json is read where the folder does not: transformers would go by the model's family, whose
    tokenizers may change it."""
    config = out / "tokenizer_config.json"
    values = read_json(config, dict[str, Any])
    if (out / "tokenizer.json").is_file() and not values.get("tokenizer_class"):
        config.write_text(json.dumps(values | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=1))


def _write_tokenizer(path: str | None, out: Path) -> dict[str, int | None]:
    """The files of the tokenizer, and the ids of the special tokens that it names."""
    from megatron_distill.data.tokenizer import load_tokenizer

    if path is None:
        return dict.fromkeys(IDS)
    if not (Path(path) / "tokenizer_config.json").exists():
        tokenizer = load_tokenizer(path)
        tokenizer.save_huggingface(out)
        return dict.fromkeys(IDS, tokenizer.eod_id)
    for file in (Path(path) / name for name in FILES):
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    _name_class(out)
    from .inference import load_folder_tokenizer

    loaded = load_folder_tokenizer(out)
    return {name: getattr(loaded, name) for name in IDS}
