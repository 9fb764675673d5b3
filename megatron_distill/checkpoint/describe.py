"""What a folder holds, in a few lines: a checkpoint of ours or a Hugging Face model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_distill.config.json_file import parse_json, read_json
from megatron_distill.config.model import ModelShape

from .from_hf import Source
from .manifest import Manifest, find_checkpoint, read_manifest
from .metadata_file import check_backend, read_metadata_file, read_steps
from .model_card import PROVENANCE, figures, removed_layers
from .tokenizer_files import FILES, find_tokenizer, tokenizer_path
from .verify import check_whole


def describe(path: Path, *, verify: bool = False) -> str:
    """Lines about the checkpoint, run or Hugging Face folder at `path`; with `verify` every byte is read.

    Raises:
        ConfigError: it is none of them, or damaged.
    """
    if (path / "config.json").is_file() and not os.path.lexists(path / "latest"):
        return "\n".join(_describe_huggingface(path))
    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    if verify:
        check_whole(folder)
        check_backend(folder)
        read_metadata_file(folder)
        read_steps(folder)
        find_tokenizer(folder, manifest)
    return "\n".join(_describe_checkpoint(folder, manifest, verified=verify))


@dataclass(frozen=True)
class _Provenance:
    """What an export of ours says about its training."""

    layers_kept: list[int] = field(default_factory=list)
    layers_before: int = 0
    steps: int = 0
    tokens: int = 0
    origin: list[str] = field(default_factory=list)


def _in_words(objective: dict[str, Any] | str) -> str:
    return objective if isinstance(objective, str) and objective else json.dumps(objective or "no teacher")


def _describe_checkpoint(folder: Path, manifest: Manifest, *, verified: bool) -> list[str]:
    size, gone = sum(manifest.files.values()), removed_layers(manifest)
    what = "whole" if verified and manifest.checksums else "sizes as written" if manifest.checksums else "no checksums"
    tokenizer = tokenizer_path(folder, manifest)
    missing = tokenizer is not None and not tokenizer.exists()
    frozen = sorted(set(manifest.layers) - set(manifest.trainable_layers))
    return [
        f"{folder}: checkpoint, format {manifest.format}",
        *_describe_shape(manifest.shape, len(manifest.layers), manifest.dtype),
        f"layers kept: {', '.join(map(str, manifest.layers))}",
        f"layers removed: {', '.join(map(str, gone)) or 'none'}",
        *([f"layers frozen: {', '.join(map(str, frozen))}"] if frozen and manifest.trainable_layers else []),
        f"step {manifest.iteration:,}, {manifest.consumed_tokens:,} tokens seen, optimizer {manifest.optimizer}",
        *(f"{name}: {value}" for name, value in figures(manifest)[1:]),
        f"started from: {' <- '.join(manifest.origin) or 'random weights'}",
        f"{size / 2**20:,.1f} MiB in {len(manifest.files)} files, {what}",
        f"tokenizer: {tokenizer or 'not recorded'}{' (missing)' if missing else ''}",
        f"fingerprint of the weights: {manifest.fingerprint}",
        f"fingerprint of the vocabulary: {manifest.tokenizer_fingerprint or 'not recorded'}",
        f"objective: {_in_words(manifest.objective)}",
        *(f"data {name}: {value}" for name, value in manifest.sample_order.items()),
    ]


def _describe_huggingface(folder: Path) -> list[str]:
    source = Source(folder)
    config = read_json(folder / "config.json", dict[str, Any])
    files = [p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin")]
    ours = config.get(PROVENANCE)
    tokenizer = [name for name in FILES if (folder / name).is_file()]
    lines = [
        f"{folder}: Hugging Face model, {source.family.architecture}, read as {source.shape.family}",
        *_describe_shape(source.shape, source.shape.num_layers, str(source.dtype).removeprefix("torch.")),
    ]
    if ours is not None:
        made = parse_json(json.dumps(ours), _Provenance, f"{folder / 'config.json'}: {PROVENANCE}")
        gone = [i for i in range(min(made.layers_before, 1 << 16)) if i not in made.layers_kept]
        lines += [
            f"layers kept: {', '.join(map(str, made.layers_kept))}",
            f"layers removed: {', '.join(map(str, gone)) or 'none'}",
            f"step {made.steps:,}, {made.tokens:,} tokens seen by megatron_distill",
            f"started from: {' <- '.join(made.origin) or 'random weights'}",
        ]
    return [
        *lines,
        f"{sum(p.stat().st_size for p in files) / 2**20:,.1f} MiB in {len(files)} files of weights",
        f"tokenizer: {', '.join(tokenizer) or 'none'}",
    ]


def _describe_shape(shape: ModelShape, layers: int, dtype: str) -> list[str]:
    groups = f" ({shape.num_query_groups} of keys)" if shape.num_query_groups != shape.num_attention_heads else ""
    return [
        f"{shape.family}, {shape.num_parameters(layers):,} parameters, {dtype}, {layers} layers",
        f"width {shape.hidden_size}, feed-forward {shape.ffn_hidden_size}, {shape.num_attention_heads} heads{groups} "
        f"of {shape.head_dim}, vocabulary {shape.vocab_size:,}, up to {shape.context_length:,} positions",
    ]
