"""Llama and its kin: Mistral, Qwen2 (biases on queries, keys and values) and Qwen3 (QK-RMSNorm)."""

from __future__ import annotations

from typing import Any

from megatron_distill.config.block import Block
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.models.decoder_block import DecoderBlock, mlp_parts

from .hf_config import HFConfig, rope_parameters
from .registry import Family, register
from .rules import Rule, padded, same, stacked
from .vocabulary import pad_vocabulary

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_QWEN = ("qwen2", "qwen3")
_FULL, _SLIDING = "full_attention", "sliding_attention"
_WINDOW = {"sliding_window": 4096, "max_window_layers": 28}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32, **_WINDOW},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128, **_WINDOW},
}
"""What a missing key means to transformers, where the families differ."""


def _read_config(config: HFConfig) -> ModelShape:
    family = str(config.values["model_type"])
    hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
    config = config.with_defaults(_DEFAULTS[family])
    heads, groups, width = config.heads(hidden)
    config.require("hidden_act", "silu")
    longest = config.integer("max_position_embeddings")
    base, part, factor = config.rotary(longest)
    if part != 1 or width % 2:
        raise ConfigError(f"{config.where}: rotary embeddings must span an even, whole head; it has width {width}")
    bias = config.flag("attention_bias", False) if family in ("llama", "qwen3") else False
    layers = config.layers("num_hidden_layers")
    window, full = _window(config, family, layers)
    block = Block(
        num_query_groups=groups,
        head_dim=width,
        rotary_dim=width,
        rotary_scaling=factor,
        tied=config.flag("tie_word_embeddings", False),
        qkv_bias=bias or family == "qwen2",
        proj_bias=bias,
        mlp_bias=config.flag("mlp_bias", False) if family == "llama" else False,
        qk_norm=family == "qwen3",
        window=window,
        full_layers=full,
    )
    return ModelShape(
        family=family,
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=config.integer("intermediate_size"),
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=pad_vocabulary(vocab),
        max_position_embeddings=longest,
        add_bias_linear=False,
        qk_layernorm="per-head",
        norm_epsilon=config.number("rms_norm_eps", 1e-6, most=1),
        rotary_base=base,
        init_method_std=config.number("initializer_range", 0.02, most=1e6),
        block=block,
    )


def _window(config: HFConfig, family: str, layers: int) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, None if no layer has one, and the layers that it does not bound."""
    slides = family == "mistral" or (family in _QWEN and config.flag("use_sliding_window", False))
    window = config.integer("sliding_window") if slides and config.values["sliding_window"] is not None else None
    if family == "mistral":
        return window, ()
    types = config.values.get("layer_types") if family in _QWEN else None
    if types is None:
        full = min(layers, config.integer("max_window_layers")) if window is not None else layers
        types = [_FULL] * full + [_SLIDING] * (layers - full)
    if not isinstance(types, list) or len(types) != layers or not all(kind in (_FULL, _SLIDING) for kind in types):
        raise ConfigError(f"{config.where}: layer_types must be {layers} times {_FULL} or {_SLIDING}")
    if _SLIDING not in types:
        return None, ()
    if window is None:
        raise ConfigError(f"{config.where}: layer_types has {_SLIDING}, but no layer has a sliding_window")
    return window, tuple(number for number, kind in enumerate(types) if kind == _FULL)


def _write_window(block: Block, layers: tuple[int, ...]) -> dict[str, Any]:
    """A Qwen's sliding window, for a model of these original layers."""
    types = [_FULL if layer in block.full_layers else _SLIDING for layer in layers]
    if block.window is None or _SLIDING not in types:
        return {"use_sliding_window": False}
    return {
        "use_sliding_window": True,
        "sliding_window": block.window,
        "max_window_layers": types.index(_SLIDING),
        "layer_types": types,
    }


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    block = shape.block
    assert block is not None
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": block.qkv_bias, "mlp_bias": block.mlp_bias},
        "mistral": {"sliding_window": block.window},
        "qwen2": _write_window(block, layers),
        "qwen3": _write_window(block, layers) | {"attention_bias": block.qkv_bias},
    }
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": block.num_query_groups,
        "head_dim": block.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.norm_epsilon,
        **rope_parameters(float(shape.rotary_base), factor=block.rotary_scaling),
        "attention_dropout": 0.0,
        "tie_word_embeddings": block.tied,
        "hidden_act": "silu",
        "initializer_range": shape.init_method_std,
        **own[shape.family],
    }


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    block, hidden, vocab = shape.block, shape.hidden_size, shape.vocab_size
    assert block is not None
    rows = shape.padded_vocab_size
    found = [
        padded("embedding.word_embeddings.weight", "model.embed_tokens.weight", rows, vocab, hidden),
        same("decoder.final_layernorm.weight", "model.norm.weight", hidden),
    ]
    if not block.tied:
        found.append(padded("output_layer.weight", "lm_head.weight", rows, vocab, hidden))
    for position, index in enumerate(layers):
        found += _layer(shape, block, f"decoder.layers.{index}.", f"model.layers.{position}.")
    return found


def _layer(shape: ModelShape, block: Block, ours: str, theirs: str) -> list[Rule]:
    hidden, ffn, width, groups = shape.hidden_size, shape.ffn_hidden_size, block.head_dim, block.num_query_groups
    qkv = tuple(f"{theirs}self_attn.{part}_proj." for part in "qkv")
    sizes = (shape.num_attention_heads // groups * width, width, width)
    mlp = (f"{theirs}mlp.gate_proj.", f"{theirs}mlp.up_proj.")
    parts = mlp_parts(groups, ffn)
    halves = (ffn // parts,) * 2
    out, down = f"{theirs}self_attn.o_proj.", f"{theirs}mlp.down_proj."
    found = [
        same(ours + "attention_norm.weight", theirs + "input_layernorm.weight", hidden),
        same(ours + "mlp_norm.weight", theirs + "post_attention_layernorm.weight", hidden),
        stacked(ours + "linear_qkv.weight", tuple(n + "weight" for n in qkv), groups, sizes, hidden),
        same(ours + "linear_proj.weight", out + "weight", hidden, shape.num_attention_heads * width),
        stacked(ours + "linear_fc1.weight", tuple(n + "weight" for n in mlp), parts, halves, hidden),
        same(ours + "linear_fc2.weight", down + "weight", hidden, ffn),
    ]
    if block.qkv_bias:
        found.append(stacked(ours + "linear_qkv.bias", tuple(n + "bias" for n in qkv), groups, sizes))
    if block.proj_bias:
        found.append(same(ours + "linear_proj.bias", out + "bias", hidden))
    if block.mlp_bias:
        found.append(stacked(ours + "linear_fc1.bias", tuple(n + "bias" for n in mlp), parts, halves))
        found.append(same(ours + "linear_fc2.bias", down + "bias", hidden))
    if block.qk_norm:
        found.append(same(ours + "q_layernorm.weight", theirs + "self_attn.q_norm.weight", width))
        found.append(same(ours + "k_layernorm.weight", theirs + "self_attn.k_norm.weight", width))
    return found


for _name, _architecture in _ARCHITECTURES.items():
    register(
        Family(
            name=_name,
            model_type=_name,
            architecture=_architecture,
            layer=DecoderBlock,
            prefix="model.",
            read_config=_read_config,
            write_config=_write_config,
            rules=_rules,
            ignored=("rotary_emb.inv_freq",),
        )
    )
