"""GPT-2: learned positions, LayerNorm and biases everywhere, a tied embedding, matrices the other way round."""

from __future__ import annotations

from typing import Any

from megatron_distill.config.block import Block
from megatron_distill.config.model import ModelShape
from megatron_distill.models.decoder_block import DecoderBlock

from .hf_config import HFConfig
from .registry import Family, register
from .rules import Rule, padded, same, shuffled, transposed
from .vocabulary import pad_vocabulary

_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
_ALIASES = (
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
)
"""Other names of the same, which transformers reads too."""


def _read_config(config: HFConfig) -> ModelShape:
    config = config.with_defaults({ours: config.values[name] for name, ours in _ALIASES if name in config.values})
    hidden, vocab = config.integer("n_embd", 768), config.integer("vocab_size", 50257)
    heads = config.plain_heads(hidden, "n_head", 12)
    for name, wanted in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
        ("tie_word_embeddings", True),
    ):
        config.require(name, wanted)
    return ModelShape(
        family="gpt2",
        num_layers=config.layers("n_layer", 12),
        hidden_size=hidden,
        ffn_hidden_size=config.integer("n_inner", 4 * hidden, nullable=True),
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=pad_vocabulary(vocab),
        max_position_embeddings=config.integer("n_positions", 1024),
        add_bias_linear=True,
        qk_layernorm="per-head",
        norm_epsilon=config.number("layer_norm_epsilon", 1e-5, most=1),
        rotary_base=10000,
        init_method_std=config.number("initializer_range", 0.02, most=1e6),
        block=Block(
            num_query_groups=heads,
            head_dim=hidden // heads,
            norm="layernorm",
            activation=config.choice("activation_function", _ACTIVATIONS, "gelu_new"),
            gated=False,
            tied=True,
            qkv_bias=True,
            proj_bias=True,
            mlp_bias=True,
        ),
    )


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    assert shape.block is not None
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "n_layer": len(layers),
        "n_embd": shape.hidden_size,
        "n_inner": shape.ffn_hidden_size,
        "n_head": shape.num_attention_heads,
        "vocab_size": shape.vocab_size,
        "n_positions": shape.max_position_embeddings,
        "n_ctx": shape.max_position_embeddings,  # for llama.cpp's converter; transformers does not read it
        "layer_norm_epsilon": shape.norm_epsilon,
        "activation_function": names[shape.block.activation],
        "initializer_range": shape.init_method_std,
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    hidden, ffn, heads, width = shape.hidden_size, shape.ffn_hidden_size, shape.num_attention_heads, shape.head_dim
    rows, positions = shape.padded_vocab_size, shape.max_position_embeddings
    found = [
        padded("embedding.word_embeddings.weight", "transformer.wte.weight", rows, shape.vocab_size, hidden),
        same("embedding.position_embeddings.weight", "transformer.wpe.weight", positions, hidden),
        same("decoder.final_layernorm.weight", "transformer.ln_f.weight", hidden),
        same("decoder.final_layernorm.bias", "transformer.ln_f.bias", hidden),
    ]
    sizes = (width,) * 3
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"transformer.h.{position}."
        found += [
            shuffled(ours + "linear_qkv.weight", theirs + "attn.c_attn.weight", heads, sizes, hidden, transpose=True),
            shuffled(ours + "linear_qkv.bias", theirs + "attn.c_attn.bias", heads, sizes),
            transposed(ours + "linear_proj.weight", theirs + "attn.c_proj.weight", hidden, hidden),
            same(ours + "linear_proj.bias", theirs + "attn.c_proj.bias", hidden),
            transposed(ours + "linear_fc1.weight", theirs + "mlp.c_fc.weight", ffn, hidden),
            same(ours + "linear_fc1.bias", theirs + "mlp.c_fc.bias", ffn),
            transposed(ours + "linear_fc2.weight", theirs + "mlp.c_proj.weight", hidden, ffn),
            same(ours + "linear_fc2.bias", theirs + "mlp.c_proj.bias", hidden),
        ]
        for mine, name in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            found += [same(f"{ours}{mine}.{p}", f"{theirs}{name}.{p}", hidden) for p in ("weight", "bias")]
    return found


register(
    Family(
        name="gpt2",
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        layer=DecoderBlock,
        prefix="transformer.",
        read_config=_read_config,
        write_config=_write_config,
        rules=_rules,
        ignored=(".attn.bias", ".attn.masked_bias"),
    )
)
