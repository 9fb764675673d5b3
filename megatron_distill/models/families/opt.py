"""OPT (arXiv:2205.01068): GPT-2's parts with ReLU, matrices the usual way round, and positions that begin at row 2."""

from __future__ import annotations

from typing import Any

from megatron_distill.config.block import Block
from megatron_distill.config.model import ModelShape
from megatron_distill.models.decoder_block import DecoderBlock

from .hf_config import HFConfig
from .registry import Family, register
from .rules import Rule, padded, same, stacked, with_bias
from .vocabulary import pad_vocabulary

_OFFSET = 2
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu"}


def _read_config(config: HFConfig) -> ModelShape:
    hidden, vocab = config.integer("hidden_size", 768), config.integer("vocab_size", 50272)
    heads = config.plain_heads(hidden, default=12)
    for name, wanted in (
        ("do_layer_norm_before", True),
        ("enable_bias", True),
        ("layer_norm_elementwise_affine", True),
        ("_remove_final_layer_norm", False),
        ("tie_word_embeddings", True),
    ):
        config.require(name, wanted)
    config.require("word_embed_proj_dim", hidden, nullable=True)
    return ModelShape(
        family="opt",
        num_layers=config.layers("num_hidden_layers", 12),
        hidden_size=hidden,
        ffn_hidden_size=config.integer("ffn_dim", 3072),
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=pad_vocabulary(vocab),
        max_position_embeddings=config.integer("max_position_embeddings", 2048),
        add_bias_linear=True,
        qk_layernorm="per-head",
        norm_epsilon=1e-5,
        rotary_base=10000,
        init_method_std=config.number("init_std", 0.02, most=1e6),
        block=Block(
            num_query_groups=heads,
            head_dim=hidden // heads,
            norm="layernorm",
            activation=config.choice("activation_function", _ACTIVATIONS, "relu"),
            gated=False,
            tied=True,
            position_offset=_OFFSET,
            qkv_bias=True,
            proj_bias=True,
            mlp_bias=True,
        ),
    )


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    assert shape.block is not None
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": shape.hidden_size,
        "word_embed_proj_dim": shape.hidden_size,
        "ffn_dim": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "activation_function": shape.block.activation,
        "do_layer_norm_before": True,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "init_std": shape.init_method_std,
    }


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    hidden, ffn, heads, width = shape.hidden_size, shape.ffn_hidden_size, shape.num_attention_heads, shape.head_dim
    rows, positions = shape.padded_vocab_size, shape.max_position_embeddings + _OFFSET
    base = "model.decoder."
    found = [
        padded("embedding.word_embeddings.weight", f"{base}embed_tokens.weight", rows, shape.vocab_size, hidden),
        same("embedding.position_embeddings.weight", f"{base}embed_positions.weight", positions, hidden),
        *with_bias("decoder.final_layernorm", f"{base}final_layer_norm", hidden),
    ]
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"{base}layers.{position}."
        for part, columns in (("weight", (hidden,)), ("bias", ())):
            qkv = tuple(f"{theirs}self_attn.{name}_proj.{part}" for name in "qkv")
            found.append(stacked(f"{ours}linear_qkv.{part}", qkv, heads, (width,) * 3, *columns))
        found += [
            *with_bias(f"{ours}linear_proj", f"{theirs}self_attn.out_proj", hidden, hidden),
            *with_bias(f"{ours}linear_fc1", f"{theirs}fc1", ffn, hidden),
            *with_bias(f"{ours}linear_fc2", f"{theirs}fc2", hidden, ffn),
            *with_bias(f"{ours}attention_norm", f"{theirs}self_attn_layer_norm", hidden),
            *with_bias(f"{ours}mlp_norm", f"{theirs}final_layer_norm", hidden),
        ]
    return found


register(
    Family(
        name="opt",
        model_type="opt",
        architecture="OPTForCausalLM",
        layer=DecoderBlock,
        prefix="model.",
        read_config=_read_config,
        write_config=_write_config,
        rules=_rules,
    )
)
