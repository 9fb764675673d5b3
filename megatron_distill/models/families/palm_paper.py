"""PaLM with biases and QK-LayerNorm over the full width, which transformers has no class for: it travels with ours."""

from __future__ import annotations

from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape
from megatron_distill.models.palm_block import PalmBlock

from .hf_config import HFConfig
from .registry import Family, register
from .rules import Rule, same


def _read_config(config: HFConfig) -> ModelShape:
    hidden, heads, ffn = (config.integer(name) for name in ("hidden_size", "num_attention_heads", "intermediate_size"))
    if hidden % (2 * heads) or ffn % heads:
        raise ConfigError(
            f"{config.where}: hidden_size {hidden} must be an even multiple of num_attention_heads {heads}, and "
            f"intermediate_size {ffn} a multiple of it"
        )
    rows = config.integer("vocab_size")
    return ModelShape(
        family="palm",
        num_layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        vocab_size=rows,
        padded_vocab_size=rows,
        max_position_embeddings=config.integer("max_position_embeddings"),
        add_bias_linear=True,
        qk_layernorm="full",
        norm_epsilon=config.number("layer_norm_eps", most=1),
        rotary_base=config.number("rope_theta"),
        init_method_std=config.number("initializer_range", 0.02, most=1e6),
    )


def _write_config(shape: ModelShape, layers: tuple[int, ...]) -> dict[str, Any]:
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "vocab_size": shape.padded_vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "layer_norm_eps": shape.norm_epsilon,
        "rope_theta": float(shape.rotary_base),
        "tie_word_embeddings": True,
        "initializer_range": shape.init_method_std,
        "auto_map": {
            "AutoConfig": "configuration_palm_paper.PalmPaperConfig",
            "AutoModelForCausalLM": "modeling_palm_paper.PalmPaperForCausalLM",
        },
    }


def _rules(shape: ModelShape, layers: tuple[int, ...]) -> list[Rule]:
    hidden, ffn = shape.hidden_size, shape.ffn_hidden_size
    found = [same("embedding.word_embeddings.weight", "model.embed_tokens.weight", shape.padded_vocab_size, hidden)]
    found += _both("decoder.final_layernorm.", "model.norm.", hidden)
    for position, index in enumerate(layers):
        ours, theirs = f"decoder.layers.{index}.", f"model.layers.{position}."
        found += [
            *_both(ours + "norm.", theirs + "norm.", hidden),
            *_both(ours + "linear_in.", theirs + "linear_in.", 3 * hidden + 2 * ffn, hidden),
            *_both(ours + "linear_out.", theirs + "linear_out.", hidden, hidden + ffn),
            *_both(ours + "qk_norm.q_", theirs + "q_norm.", hidden),
            *_both(ours + "qk_norm.k_", theirs + "k_norm.", hidden),
        ]
    return found


def _both(ours: str, theirs: str, rows: int, *columns: int) -> list[Rule]:
    return [same(ours + "weight", theirs + "weight", rows, *columns), same(ours + "bias", theirs + "bias", rows)]


register(
    Family(
        name="palm-paper",
        model_type="palm_paper",
        architecture="PalmPaperForCausalLM",
        layer=PalmBlock,
        prefix="model.",
        read_config=_read_config,
        write_config=_write_config,
        rules=_rules,
        code="megatron_distill.models.exported.palm_paper",
    )
)
