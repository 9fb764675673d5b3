"""What a folder holds, in a few lines: a checkpoint of ours or a Hugging Face model."""

from __future__ import annotations

import json
from pathlib import Path

from megatron_distill.config.model import ModelShape

from .from_hf import Source
from .manifest import Manifest, find_checkpoint, read_manifest
from .model_card import PROVENANCE, figures, removed_layers
from .tokenizer_files import FILES, find_tokenizer
from .verify import check_whole


def describe(path: Path, *, verify: bool = False) -> str:
    """Lines about the checkpoint, run or Hugging Face folder at `path`; with `verify` every byte is read.

    Raises:
        ConfigError: it is none of them, or damaged.
    """
    if (path / "config.json").is_file() and not (path / "latest").exists():
        return "\n".join(_describe_huggingface(path))
    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    if verify:
        check_whole(folder)
    return "\n".join(_describe_checkpoint(folder, manifest, verified=verify))


def _describe_checkpoint(folder: Path, manifest: Manifest, *, verified: bool) -> list[str]:
    size, gone = sum(manifest.files.values()), removed_layers(manifest)
    what = "whole" if verified and manifest.checksums else "sizes as written" if manifest.checksums else "no checksums"
    tokenizer = find_tokenizer(folder, manifest)
    missing = tokenizer is not None and not Path(tokenizer).exists()
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
        f"tokenizer: {tokenizer or 'not recorded'}{' (which is gone)' if missing else ''}",
    ]


def _describe_huggingface(folder: Path) -> list[str]:
    source = Source(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    files = [p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin")]
    ours = config.get(PROVENANCE)
    tokenizer = [name for name in FILES if (folder / name).is_file()]
    lines = [
        f"{folder}: Hugging Face model, {source.family.architecture}, read as {source.shape.family}",
        *_describe_shape(source.shape, source.shape.num_layers, str(source.dtype).removeprefix("torch.")),
    ]
    if isinstance(ours, dict):
        kept, before = ours.get("layers_kept", []), ours.get("layers_before", 0)
        gone = sorted(set(range(before)) - set(kept))
        lines += [
            f"layers kept: {', '.join(map(str, kept))}",
            f"layers removed: {', '.join(map(str, gone)) or 'none'}",
            f"step {ours.get('steps', 0):,}, {ours.get('tokens', 0):,} tokens seen by megatron_distill",
            f"started from: {' <- '.join(ours.get('origin', [])) or 'random weights'}",
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
