"""Whether a checkpoint and a Hugging Face folder are the same model: their logits, side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.run import Layout
from megatron_distill.data.tokenizer import load_tokenizer
from megatron_distill.models.build import BuildOptions, build_decoder
from megatron_distill.models.families import find_exported
from megatron_distill.parallel import device

from .huggingface import load_exported
from .manifest import Manifest
from .native import load_checkpoint
from .tokenizer_files import find_tokenizer

TEXT = """The river rises in a marsh below two hills, and for its first day's walk nobody would call it
more than a brook. Then, within an hour, three others join it: one brown with peat, one white with chalk, and one so
cold that the fish keep to the far bank until the water has mixed. In 1874 a bridge was built here; it cost 3,200 pounds
and lasted nine years.
"""


@torch.no_grad()
def largest_difference(folder: Path, manifest: Manifest, exported: Path, *, tokens: int = 64) -> float:
    """Largest absolute difference between the logits of a checkpoint and of a Hugging Face folder.

    On `tokens` of a text, where there is a tokenizer, and on as many at random. Both compute in fp32, whatever the
    weights were saved in: bf16 would round away what there is to see. Needs a process group of one rank.
    """
    single = Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)
    options = BuildOptions(dtype=getattr(torch, manifest.dtype), attention_backend="sdpa")
    ours = build_decoder(manifest.shape, manifest.layers, single, options)
    load_checkpoint(folder, ours, None)
    ours.float()
    theirs = load_exported(exported, find_exported(manifest.shape), dtype=torch.float32)
    theirs.to(device.current()).eval()
    ids = _ids(folder, manifest, min(tokens, manifest.shape.max_position_embeddings)).to(device.current())
    positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    # Rows that pad our vocabulary are not in every export.
    expected = theirs(ids).logits
    return float((ours(ids, positions, None)[..., : expected.shape[-1]] - expected).abs().max())


def _ids(folder: Path, manifest: Manifest, tokens: int) -> Tensor:
    """[2, tokens] of text and at random; both at random if there is no tokenizer of this vocabulary."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, manifest.shape.vocab_size, (2, tokens), generator=generator)
    path = find_tokenizer(folder, manifest)
    if path is not None:
        try:
            words = load_tokenizer(path).encode_batch([TEXT])[0][:tokens]
        except ConfigError:  # transformers knows more kinds of tokenizers than we do
            return ids
        if max(words, default=0) < manifest.shape.vocab_size:
            ids[0, : len(words)] = torch.tensor(words)
    return ids
