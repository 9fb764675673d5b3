"""PaLM (arXiv:2204.02311), which transformers knows as Cohere.

A bias-free PaLM model is a `CohereForCausalLM` to the last bit of mathematics: the same parallel block, per-head
QK-LayerNorm and tied embedding. Two things differ in how it is written down, and the rules undo both: our fused
matrices are grouped by head (palm_block.py), and Cohere rotates neighbouring dimensions where we rotate dim i with
i + head_dim / 2, which is a permutation of the rows of queries and keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.models.palm_block import PalmBlock

from .hf_config import HFConfig, rope_parameters
from .registry import Family, register
from .rules import Rule, same


def _read_config(config: HFConfig) -> ModelShape:
    hidden = config.integer("hidden_size")
    heads, groups, width = config.heads(hidden)
    ffn, vocab = config.integer("intermediate_size"), config.integer("vocab_size")
    # The defaults of transformers' CohereConfig are those of Command R, which is another model in three ways.
    plain = config.values.get("use_qk_norm") is True and config.values.get("logit_scale") == 1
    if not plain or groups != heads:
        raise ConfigError(
            f"{config.where}: only Cohere models with use_qk_norm true, logit_scale 1 and as many key heads as query "
            "heads can be read, because PaLM's block has no others"
        )
    for name, wanted in (("attention_bias", False), ("tie_word_embeddings", True), ("hidden_act", "silu")):
        config.require(name, wanted)
    if width * heads != hidden or width % 2 or ffn % heads:
        raise ConfigError(
            f"{config.where}: hidden_size {hidden} must be an even multiple of num_attention_heads {heads}, and "
            f"intermediate_size {ffn} a multiple of it"
        )
    longest = config.integer("max_position_embeddings", 8192)
    base, part, factor = config.rotary(longest, base=("rope_theta", 5e5))
    if part != 1 or factor != 1:
        raise ConfigError(f"{config.where}: only plain rotary embeddings over the whole head can be read")
    return ModelShape(
        family="palm",
        num_layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=vocab,
        max_position_embeddings=longest,
        add_bias_linear=False,
        qk_layernorm="per-head",
        norm_epsilon=config.number("layer_norm_eps", 1e-5, most=1),
        rotary_base=base,
        init_method_std=config.number("initializer_range", 0.02, most=1e6),
    )


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "vocab_size": shape.padded_vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_epsilon,
        **rope_parameters(float(shape.rotary_base)),
        "use_qk_norm": True,
        "logit_scale": 1.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "initializer_range": shape.init_method_std,
    }


def _flavour(shape: ModelShape) -> str:
    """CohereForCausalLM has no biases and normalises each head for itself."""
    return "palm-paper" if shape.add_bias_linear else "palm"


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    hidden, rows = shape.hidden_size, shape.padded_vocab_size
    found = [
        same("embedding.word_embeddings.weight", "model.embed_tokens.weight", rows, hidden),
        same("decoder.final_layernorm.weight", "model.norm.weight", hidden),
    ]
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"model.layers.{position}."
        found += [
            same(ours + "norm.weight", theirs + "input_layernorm.weight", hidden),
            _fused_in(ours + "linear_in.weight", theirs, shape),
            _fused_out(ours + "linear_out.weight", theirs, shape),
            _head_norm(ours + "q_layernorm.weight", theirs + "self_attn.q_norm.weight", shape),
            _head_norm(ours + "k_layernorm.weight", theirs + "self_attn.k_norm.weight", shape),
        ]
    return found


def _fused_in(ours: str, theirs: str, shape: ModelShape) -> Rule:
    heads, width, hidden = shape.num_attention_heads, shape.head_dim, shape.hidden_size
    ffn = shape.ffn_hidden_size // heads
    sizes = [width] * 3 + [ffn] * 2
    forth, back = _neighbours(width)

    def join(*tensors: Tensor) -> Tensor:
        q, k, *others = (x.view(heads, size, hidden) for x, size in zip(tensors, sizes, strict=True))
        return torch.cat((q[:, back], k[:, back], *others), dim=1).view(-1, hidden)

    def cut(x: Tensor) -> tuple[Tensor, ...]:
        q, k, *others = x.view(heads, -1, hidden).split(sizes, dim=1)
        return tuple(part.reshape(-1, hidden) for part in (q[:, forth], k[:, forth], *others))

    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.gate_proj")
    shapes = {f"{theirs}{n}.weight": (heads * size, hidden) for n, size in zip(names, sizes, strict=True)}
    return Rule(ours, (heads * sum(sizes), hidden), shapes, join, cut)


def _fused_out(ours: str, theirs: str, shape: ModelShape) -> Rule:
    heads, width, hidden = shape.num_attention_heads, shape.head_dim, shape.hidden_size
    ffn = shape.ffn_hidden_size // heads

    def join(o: Tensor, down: Tensor) -> Tensor:
        return torch.cat((o.view(hidden, heads, width), down.view(hidden, heads, ffn)), dim=2).view(hidden, -1)

    def cut(x: Tensor) -> tuple[Tensor, ...]:
        parts = x.view(hidden, heads, -1).split([width, ffn], dim=2)
        return tuple(part.reshape(hidden, -1) for part in parts)

    shapes = {
        theirs + "self_attn.o_proj.weight": (hidden, heads * width),
        theirs + "mlp.down_proj.weight": (hidden, heads * ffn),
    }
    return Rule(ours, (hidden, heads * (width + ffn)), shapes, join, cut)


def _head_norm(ours: str, theirs: str, shape: ModelShape) -> Rule:
    heads, width = shape.num_attention_heads, shape.head_dim
    forth, back = _neighbours(width)

    def join(x: Tensor) -> Tensor:
        if not torch.equal(x, x[:1].expand_as(x)):
            raise ConfigError(f"{theirs} differs from head to head; PaLM's block has one QK-LayerNorm for all heads")
        return x[0][back]

    return Rule(ours, (width,), {theirs: (heads, width)}, join, lambda x: (x[forth].expand(heads, -1),))


def _neighbours(width: int) -> tuple[Tensor, Tensor]:
    """Positions that bring dim i beside i + width / 2, and those that bring them back."""
    forth = torch.arange(width).view(2, width // 2).t().reshape(-1)
    return forth, torch.argsort(forth)


register(
    Family(
        name="palm",
        model_type="cohere",
        architecture="CohereForCausalLM",
        layer=PalmBlock,
        prefix="model.",
        read_config=_read_config,
        write_config=_write_config,
        rules=_rules,
        exported_as=_flavour,
    )
)
