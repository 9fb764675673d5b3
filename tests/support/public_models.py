"""Small random models of the real architectures, as transformers makes and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron_distill.config.model import ModelShape
from megatron_distill.models.families import find_model_type
from megatron_distill.models.families.hf_config import HFConfig

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 75}
_LLAMA = SIZES | {"intermediate_size": 104, "num_key_value_heads": 2, "max_position_embeddings": 64}
_OPT = SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64, "max_position_embeddings": 64, "dropout": 0.0}
_NEOX = SIZES | {"intermediate_size": 96, "max_position_embeddings": 64}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama-3.1": (
        "llama",
        _LLAMA | {"rope_parameters": _LLAMA3 | {"original_max_position_embeddings": 8192}, "head_dim": 32},
    ),
    "llama-biases": ("llama", _LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mistral": ("mistral", _LLAMA | {"sliding_window": 64}),
    "qwen2": ("qwen2", _LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 32}),
    "gpt2": (
        "gpt2",
        {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 75, "n_positions": 64},
    ),
    "opt": ("opt", _OPT),
    "gpt_neox": ("gpt_neox", _NEOX),
    "gpt_neox-sequential": ("gpt_neox", _NEOX | {"use_parallel_residual": False, "rotary_pct": 1.0}),
    "palm": (
        "cohere",
        SIZES
        | {"intermediate_size": 128, "num_key_value_heads": 4, "use_qk_norm": True, "logit_scale": 1.0}
        | {"max_position_embeddings": 64, "vocab_size": 76},  # which 2 ranks share; this family pads nothing
    ),
    "palm-paper": (
        "palm_paper",
        SIZES
        | {"intermediate_size": 128, "max_position_embeddings": 64, "vocab_size": 76}
        | {"layer_norm_eps": 1e-5, "rope_theta": 1e4},
    ),
}
"""name: (model_type, its configuration)"""


def public_shape(name: str) -> ModelShape:
    """The shape of a model of MODELS."""
    model_type, values = MODELS[name]
    config = HFConfig({"model_type": model_type} | values, name)
    return find_model_type(model_type, name).read_config(config)


def save_public_model(name: str, folder: Path, **options: Any) -> Path:
    """A random model of MODELS, saved by transformers; returns its folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from megatron_distill.checkpoint.huggingface import model_class

    model_type, values = MODELS[name]
    torch.manual_seed(7)
    values = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0) | values
    family = find_model_type(model_type, name)
    if family.code:
        model = model_class(family)(model_class(family).config_class(**values))
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **values))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # PaLM's norm of queries, and of keys, is the same for all heads.
            if model_type == "cohere" and ("q_norm" in key or "k_norm" in key):
                parameter += 0.1 * torch.randn(parameter.shape[-1])
            else:  # away from 0 and 1, where errors would hide; larger, so that layers matter
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, **options)
    return folder
