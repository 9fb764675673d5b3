"""Our checkpoints as Hugging Face folders that need no code of ours.

A bias-free PaLM model is a `CohereForCausalLM` to the last bit of mathematics: the same parallel block, per-head
QK-LayerNorm and tied embedding. Two things differ in how it is written down, and the mapping undoes both: our fused
matrices are grouped by head (models/palm_block.py), and Cohere rotates neighbouring dimensions where we rotate dim i
with i + head_dim / 2, which is a permutation of the rows of queries and keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape

from .manifest import Manifest


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All model tensors of a checkpoint, whole, on the CPU, under their names with original layer indices.

    Needs a process group of one rank, because megatron-core's reader does.
    """
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    described = dist_checkpointing.load_tensors_metadata(str(folder))
    wanted = {
        name: ShardedTensor.from_rank_offsets(name, torch.empty(meta.global_shape, dtype=meta.dtype), replica_id=0)
        for name, meta in described.items()
        if not name.startswith("optimizer.")
    }
    return dist_checkpointing.load(wanted, str(folder))


def to_cohere(weights: dict[str, Tensor], shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Tensor]:
    """Tensors of our model under the names of `CohereForCausalLM`."""
    heads, width, ffn = shape.num_attention_heads, shape.head_dim, shape.ffn_hidden_size // shape.num_attention_heads
    hidden = shape.hidden_size
    table = weights["embedding.word_embeddings.weight"]
    out = {"model.embed_tokens.weight": table, "model.norm.weight": weights["decoder.final_layernorm.weight"]}
    neighbours = torch.arange(width).view(2, width // 2).t().reshape(-1)
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"model.layers.{position}."
        fused = weights[ours + "linear_in.weight"].view(heads, -1, hidden)
        q, k, v, up, gate = fused.split([width] * 3 + [ffn] * 2, dim=1)
        o, down = weights[ours + "linear_out.weight"].view(hidden, heads, -1).split([width, ffn], dim=2)
        out |= {
            theirs + "input_layernorm.weight": weights[ours + "norm.weight"],
            theirs + "self_attn.q_proj.weight": q[:, neighbours].reshape(-1, hidden),
            theirs + "self_attn.k_proj.weight": k[:, neighbours].reshape(-1, hidden),
            theirs + "self_attn.v_proj.weight": v.reshape(-1, hidden),
            theirs + "self_attn.o_proj.weight": o.reshape(hidden, -1),
            theirs + "self_attn.q_norm.weight": weights[ours + "q_layernorm.weight"][neighbours].expand(heads, -1),
            theirs + "self_attn.k_norm.weight": weights[ours + "k_layernorm.weight"][neighbours].expand(heads, -1),
            theirs + "mlp.up_proj.weight": up.reshape(-1, hidden),
            theirs + "mlp.gate_proj.weight": gate.reshape(-1, hidden),
            theirs + "mlp.down_proj.weight": down.reshape(hidden, -1),
        }
    return {name: tensor.contiguous() for name, tensor in out.items()}


def cohere_config(shape: ModelShape, num_layers: int, dtype: str, eod: int | None) -> dict[str, Any]:
    """`config.json` of the exported model."""
    return {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "vocab_size": shape.padded_vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        "rope_theta": float(shape.rotary_base),
        "use_qk_norm": True,
        "logit_scale": 1.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": eod,
        "eos_token_id": eod,
        "pad_token_id": eod,
        "dtype": dtype,
    }


def export(folder: Path, manifest: Manifest, out: Path) -> None:
    """Write a checkpoint as a Hugging Face folder: weights, configuration, tokenizer.

    Raises:
        ConfigError: a flavour of the model that no Hugging Face class expresses.
    """
    from safetensors.torch import save_file

    from megatron_distill.data.tokenizer import load_tokenizer

    if manifest.shape.add_bias_linear or manifest.shape.qk_layernorm == "full":
        raise ConfigError(
            f"{folder} holds a -paper model (biases, QK-LayerNorm over the full width), which no Hugging Face class "
            "expresses; export a model without -paper"
        )
    tokenizer = load_tokenizer(manifest.tokenizer) if manifest.tokenizer else None
    tensors = to_cohere(read_weights(folder), manifest.shape, manifest.layers)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    eod = tokenizer.eod_id if tokenizer else None
    config = cohere_config(manifest.shape, len(manifest.layers), manifest.dtype, eod)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    generation = {"bos_token_id": eod, "eos_token_id": eod, "pad_token_id": eod}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=1))
    if tokenizer:
        tokenizer.save_huggingface(out)


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
    theirs: Any = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    theirs.to(device.current())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, manifest.shape.vocab_size, (2, tokens), generator=generator).to(device.current())
    positions = torch.arange(tokens, device=ids.device).expand(2, -1)
    return float((ours(ids, positions, None) - theirs(ids).logits).abs().max())
