"""Our checkpoints as Hugging Face folders that need no code of ours; models/families says which tensor is which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.models.families import find_family
from megatron_distill.models.families.rules import Rule

from .manifest import Manifest
from .stream import write_safetensors

_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SHARD_BYTES = 4 << 30
"""A safetensors file of an export is no larger, unless one tensor is."""


def read_tensor(folder: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """One model tensor of a checkpoint, whole, on the CPU. Needs a process group of one rank, as megatron-core does."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    wanted = ShardedTensor.from_rank_offsets(name, torch.empty(shape, dtype=dtype), replica_id=0)
    return dist_checkpointing.load({name: wanted}, str(folder))[name]


def export(folder: Path, manifest: Manifest, out: Path) -> None:
    """Write a checkpoint as a Hugging Face folder: weights in shards, configuration, tokenizer.

    Tensors are read and written one by one. Needs a process group of one rank.

    Raises:
        ConfigError: a flavour of the model that no Hugging Face class expresses.
    """
    from megatron_distill.data.tokenizer import load_tokenizer

    shape, layers, dtype = manifest.shape, manifest.layers, getattr(torch, manifest.dtype)
    family = find_family(shape.family)
    try:
        own = family.write_config(shape, len(layers))
    except ConfigError as error:
        raise ConfigError(f"{folder} cannot be exported: {error}") from error
    copied = manifest.tokenizer is not None and (Path(manifest.tokenizer) / "tokenizer_config.json").exists()
    tokenizer = load_tokenizer(manifest.tokenizer) if manifest.tokenizer and not copied else None
    out.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, family.rules(shape, layers), dtype, out)
    ends: dict[str, int | None] = dict.fromkeys(_ENDS)
    if copied and manifest.tokenizer:
        ends |= _copy_tokenizer(Path(manifest.tokenizer), out)
    if tokenizer:
        tokenizer.save_huggingface(out)
        ends = dict.fromkeys(_ENDS, tokenizer.eod_id)
    config = {"architectures": [family.architecture], "model_type": family.model_type, "dtype": manifest.dtype}
    (out / "config.json").write_text(json.dumps(config | own | ends, indent=1))
    (out / "generation_config.json").write_text(json.dumps(ends, indent=1))


def _write_weights(folder: Path, rules: list[Rule], dtype: torch.dtype, out: Path) -> None:
    shards = _shards(rules, dtype.itemsize)
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        last = len(shards)
        name = "model.safetensors" if last == 1 else f"model-{number:05d}-of-{last:05d}.safetensors"
        described = {theirs: size for rule in shard for theirs, size in rule.theirs.items()}
        where |= dict.fromkeys(described, name)
        write_safetensors(out / name, described, dtype, _cut_all(folder, shard, dtype))
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


def _cut_all(folder: Path, rules: list[Rule], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for rule in rules:
        yield from zip(rule.theirs, rule.cut(read_tensor(folder, rule.ours, rule.shape, dtype)), strict=True)


def _copy_tokenizer(tokenizer: Path, out: Path) -> dict[str, int | None]:
    """Copy the tokenizer that an imported model came with; ids of the special tokens that it names, None for others."""
    for file in tokenizer.iterdir():
        shutil.copyfile(file, out / file.name)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    return {name: getattr(loaded, name) for name in _ENDS}


@torch.no_grad()
def largest_difference(folder: Path, manifest: Manifest, exported: Path, *, tokens: int = 64) -> float:
    """Largest absolute difference between the logits of a checkpoint and of its export, on random tokens.

    Both compute in fp32, whatever the weights were saved in: bf16 would round away what there is to see. Needs a
    process group of one rank.
    """
    from transformers import AutoModelForCausalLM

    from megatron_distill.checkpoint.native import load_checkpoint
    from megatron_distill.config.run import Layout
    from megatron_distill.models.build import BuildOptions, build_decoder
    from megatron_distill.parallel import device

    single = Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)
    dtype = getattr(torch, manifest.dtype)
    options = BuildOptions(dtype=dtype, attention_backend="sdpa")
    ours = build_decoder(manifest.shape, manifest.layers, single, options)
    load_checkpoint(folder, ours, None)
    ours.float()
    theirs: Any = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, trust_remote_code=False)
    theirs.to(device.current())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, manifest.shape.vocab_size, (2, tokens), generator=generator).to(device.current())
    positions = torch.arange(tokens, device=ids.device).expand(2, -1)
    # Rows that pad our vocabulary are not in every export.
    expected = theirs(ids).logits
    return float((ours(ids, positions, None)[..., : expected.shape[-1]] - expected).abs().max())
