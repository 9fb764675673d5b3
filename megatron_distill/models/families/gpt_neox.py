"""GPT-NeoX and Pythia (arXiv:2204.06745): attention and feed-forward from the same input, partial rotary embeddings.

Its fused queries, keys and values are grouped by head as ours are.
"""

from __future__ import annotations

from typing import Any

from megatron_distill.config.block import Block
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.models.decoder_block import DecoderBlock

from .hf_config import HFConfig, rope_parameters
from .registry import Family, register
from .rules import Rule, padded, with_bias
from .vocabulary import pad_vocabulary

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}


def _read_config(config: HFConfig) -> ModelShape:
    hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
    heads = config.plain_heads(hidden)
    width = hidden // heads
    config.require("attention_bias", True)
    longest = config.integer("max_position_embeddings", 2048)
    base, part, factor = config.rotary(longest, base=("rotary_emb_base", 1e4), part=("rotary_pct", 0.25))
    rotary_dim = int(width * part)
    if rotary_dim < 2 or rotary_dim % 2 or factor != 1:
        raise ConfigError(f"{config.where}: plain rotary embeddings over an even number of dimensions are needed")
    return ModelShape(
        family="gpt_neox",
        num_layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        ffn_hidden_size=config.integer("intermediate_size"),
        num_attention_heads=heads,
        vocab_size=vocab,
        padded_vocab_size=pad_vocabulary(vocab),
        max_position_embeddings=longest,
        add_bias_linear=True,
        qk_layernorm="per-head",
        norm_epsilon=config.number("layer_norm_eps", 1e-5, most=1),
        rotary_base=base,
        init_method_std=config.number("initializer_range", 0.02, most=1e6),
        block=Block(
            num_query_groups=heads,
            head_dim=width,
            norm="layernorm",
            activation=config.choice("hidden_act", _ACTIVATIONS, "gelu"),
            gated=False,
            tied=config.flag("tie_word_embeddings", False),
            parallel_residual=config.flag("use_parallel_residual", True),
            rotary_dim=rotary_dim,
            qkv_bias=True,
            proj_bias=True,
            mlp_bias=True,
        ),
    )


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    block = shape.block
    assert block is not None
    part = block.rotary_dim / block.head_dim
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_epsilon,
        "hidden_act": names[block.activation],
        "use_parallel_residual": block.parallel_residual,
        **rope_parameters(float(shape.rotary_base), part),
        "rotary_pct": part,
        "rotary_emb_base": shape.rotary_base,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "tie_word_embeddings": block.tied,
        "initializer_range": shape.init_method_std,
    }


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    hidden, ffn, rows = shape.hidden_size, shape.ffn_hidden_size, shape.padded_vocab_size
    found = [
        padded("embedding.word_embeddings.weight", "gpt_neox.embed_in.weight", rows, shape.vocab_size, hidden),
        *with_bias("decoder.final_layernorm", "gpt_neox.final_layer_norm", hidden),
    ]
    if not shape.tied:
        found.append(padded("output_layer.weight", "embed_out.weight", rows, shape.vocab_size, hidden))
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"gpt_neox.layers.{position}."
        found += [
            *with_bias(f"{ours}linear_qkv", f"{theirs}attention.query_key_value", 3 * hidden, hidden),
            *with_bias(f"{ours}linear_proj", f"{theirs}attention.dense", hidden, hidden),
            *with_bias(f"{ours}linear_fc1", f"{theirs}mlp.dense_h_to_4h", ffn, hidden),
            *with_bias(f"{ours}linear_fc2", f"{theirs}mlp.dense_4h_to_h", hidden, ffn),
            *with_bias(f"{ours}attention_norm", f"{theirs}input_layernorm", hidden),
            *with_bias(f"{ours}mlp_norm", f"{theirs}post_attention_layernorm", hidden),
        ]
    return found


register(
    Family(
        name="gpt_neox",
        model_type="gpt_neox",
        architecture="GPTNeoXForCausalLM",
        layer=DecoderBlock,
        prefix="gpt_neox.",
        read_config=_read_config,
        write_config=_write_config,
        rules=_rules,
        ignored=(".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"),
    )
)
