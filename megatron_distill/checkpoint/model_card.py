"""What an export says about itself: a model card for people, and the same for programs in config.json."""

from __future__ import annotations

from typing import Any

from megatron_distill.config.escape import for_markdown

from .manifest import Manifest

PROVENANCE = "megatron_distill"
"""The key of config.json under which `provenance` lies; transformers keeps it and does nothing with it."""


def provenance(manifest: Manifest) -> dict[str, Any]:
    """Where an exported model comes from."""
    return {
        "layers_kept": list(manifest.layers),
        "layers_before": manifest.shape.num_layers,
        "steps": manifest.iteration,
        "tokens": manifest.consumed_tokens,
        "origin": list(manifest.origin),
    }


def removed_layers(manifest: Manifest) -> list[int]:
    """Original indices of the layers that are gone."""
    return sorted(set(range(manifest.shape.num_layers)) - set(manifest.layers))


def model_card(name: str, manifest: Manifest, *, has_code: bool, has_tokenizer: bool) -> str:
    """README.md of an export, with the run's figures as far as the checkpoint knows them."""
    shape, kept, gone = manifest.shape, manifest.layers, removed_layers(manifest)
    rows = [
        ("parameters", f"{shape.num_parameters(len(kept)):,}"),
        ("weights", manifest.dtype),
        ("layers", f"{len(kept)} of {shape.num_layers}" if gone else str(len(kept))),
        ("layers kept (numbers in the model before)", ", ".join(map(str, kept))),
        ("layers removed", ", ".join(map(str, gone)) or "none"),
        ("width, heads", f"{shape.hidden_size}, {shape.num_attention_heads}"),
        ("vocabulary", f"{shape.vocab_size:,}"),
        ("longest sequence", f"{shape.context_length:,} tokens"),
        ("started from", " <- ".join(manifest.origin) or "random weights"),
        *figures(manifest),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    option = ", trust_remote_code=True" if has_code else ""
    example = f"model = AutoModelForCausalLM.from_pretrained({name!r}{option})"
    if has_tokenizer:
        example += f"""
tokenizer = AutoTokenizer.from_pretrained({name!r})
tokens = model.generate(**tokenizer("The", return_tensors="pt"), max_new_tokens=20)
print(tokenizer.decode(tokens[0]))"""
    warning = (
        "\nThe model is defined by the two Python files of this folder, which run when it is loaded: read them first.\n"
        if has_code
        else ""
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [megatron_distill]
---

# {for_markdown(name)}

A {shape.family} language model{" with layers removed" if gone else ""}, written by megatron_distill.

| | |
|---|---|
{table}
{warning}
```python
from transformers import AutoModelForCausalLM{", AutoTokenizer" if has_tokenizer else ""}

{example}
```
"""


def figures(manifest: Manifest) -> list[tuple[str, str]]:
    """What was counted and measured while it was trained; nothing for a model that was only converted."""
    progress = manifest.progress
    rows = []
    if manifest.iteration:
        steps, tokens = f"{manifest.iteration:,}", f"{manifest.consumed_tokens:,}"
        rows.append(("trained here for", f"{steps} steps, {tokens} tokens, optimizer {manifest.optimizer}"))
    if progress.get("flops"):
        rows.append(("training FLOPs here", f"{progress['flops']:.3g}"))
    if progress.get("initial_perplexity") is not None:
        rows.append(("validation perplexity at the start, in its final shape", f"{progress['initial_perplexity']:.4g}"))
    if progress.get("perplexity") is not None:
        rows.append(("validation perplexity at the end", f"{progress['perplexity']:.4g}"))
    return rows
