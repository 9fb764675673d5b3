"""Parameters and FLOPs of public models."""

from __future__ import annotations

import pytest

from megatron_distill.config.block import Block
from megatron_distill.config.model import shape_from_dict

_BIASES = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True}
_GPT2 = {"norm": "layernorm", "gated": False, **_BIASES}
PUBLISHED = {  # block, (layers, hidden, heads, ffn, vocabulary, positions), parameters
    "gpt2": (Block(num_query_groups=12, head_dim=64, tied=True, **_GPT2), (12, 768, 12, 3072, 50257, 1024), 124439808),
    "opt-125m": (
        Block(num_query_groups=12, head_dim=64, tied=True, position_offset=2, **_GPT2),
        (12, 768, 12, 3072, 50272, 2048),
        125239296,
    ),
    "pythia-70m": (
        Block(num_query_groups=8, head_dim=64, rotary_dim=16, **_GPT2),
        (6, 512, 8, 2048, 50304, 2048),
        70426624,
    ),
    "llama-2-7b": (
        Block(num_query_groups=32, head_dim=128, rotary_dim=128),
        (32, 4096, 32, 11008, 32000, 4096),
        6738415616,
    ),
    "llama-3.2-1b": (
        Block(num_query_groups=8, head_dim=64, rotary_dim=64, tied=True),
        (16, 2048, 32, 8192, 128256, 131072),
        1235814400,
    ),
    "qwen2-0.5b": (
        Block(num_query_groups=2, head_dim=64, rotary_dim=64, tied=True, qkv_bias=True),
        (24, 896, 14, 4864, 151936, 131072),
        494032768,
    ),
    "qwen3-0.6b": (
        Block(num_query_groups=8, head_dim=128, rotary_dim=128, tied=True, qk_norm=True),
        (28, 1024, 16, 3072, 151936, 40960),
        596049920,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_public_models_have_their_published_sizes(name: str) -> None:
    block, size, wanted = PUBLISHED[name]
    assert block.num_parameters(*size) == wanted


def test_flops_are_six_a_weight_and_attention() -> None:
    block, (layers, hidden, heads, ffn, vocab, _), _ = PUBLISHED["gpt2"]
    matrices = layers * (4 * hidden**2 + 2 * hidden * ffn) + hidden * vocab
    scores_and_values = layers * 2 * hidden * (1024 + 1) / 2
    found = block.flops_per_token(layers, hidden, heads, ffn, vocab, 1024)
    assert found == pytest.approx(6 * (matrices + scores_and_values), rel=1e-12)


def test_manifests_of_before_there_were_families_are_read() -> None:
    old = {
        "family": "palm",
        "num_layers": 4,
        "hidden_size": 64,
        "ffn_hidden_size": 128,
        "num_attention_heads": 4,
        "vocab_size": 60,
        "padded_vocab_size": 64,
        "max_position_embeddings": 2048,
        "add_bias_linear": False,
        "qk_layernorm": "per-head",
        "norm_epsilon": 1e-05,
        "rotary_base": 10000,
        "init_method_std": 0.02,
    }
    shape = shape_from_dict(old)
    assert (shape.block, shape.head_dim, shape.num_query_groups, shape.tied) == (None, 16, 4, True)
