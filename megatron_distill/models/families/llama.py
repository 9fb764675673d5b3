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


def _read_config(config: HFConfig) -> ModelShape:
    family = str(config.values["model_type"])
    hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
    if family == "qwen3":  # the one whose width of a head has a default of its own
        config = HFConfig({"head_dim": 128} | config.values, config.where)
    heads, groups, width = config.heads(hidden)
    config.require("hidden_act", "silu")
    base, part, factor = config.rotary()
    if part != 1 or width % 2:
        raise ConfigError(f"{config.where}: rotary embeddings must span an even, whole head; it has width {width}")
    bias = config.flag("attention_bias", False) if family in ("llama", "qwen3") else False
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
    )
    return ModelShape(
        family=family,
        num_layers=config.integer("num_hidden_layers"),
        hidden_size=hidden,
        ffn_hidden_size=config.integer("intermediate_size"),
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=pad_vocabulary(vocab),
        max_position_embeddings=_positions(config, family),
        add_bias_linear=False,
        qk_layernorm="per-head",
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
        rotary_base=base,
        init_method_std=config.number("initializer_range", 0.02),
        block=block,
    )


def _positions(config: HFConfig, family: str) -> int:
    """Positions up to which full attention and a sliding window are the same."""
    longest = config.integer("max_position_embeddings", 2048)
    slides = family == "mistral" or (family.startswith("qwen") and config.flag("use_sliding_window", False))
    window = config.values.get("sliding_window") if slides else None
    return longest if window is None else min(longest, config.integer("sliding_window"))


def _write_config(shape: ModelShape, num_layers: int) -> dict[str, Any]:
    block = shape.block
    assert block is not None
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": block.qkv_bias, "mlp_bias": block.mlp_bias},
        "mistral": {"sliding_window": None},
        "qwen2": {"use_sliding_window": False},
        "qwen3": {"use_sliding_window": False, "attention_bias": block.qkv_bias},
    }
    return {
        "num_hidden_layers": num_layers,
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
