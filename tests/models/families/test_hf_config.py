"""What a config.json may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.models.families import find_model_type
from megatron_distill.models.families.hf_config import HFConfig, rope_parameters
from tests.support.public_models import MODELS


def read(name: str, **values: Any) -> Any:
    model_type, own = MODELS[name]
    config = HFConfig({"model_type": model_type} | own | values, "config.json")
    return find_model_type(model_type, "config.json").read_config(config)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": None},
    ],
)
def test_old_and_new_spellings_of_rotary_embeddings(values: dict[str, Any]) -> None:
    assert HFConfig(values, "x").rotary() == (5e5, 1.0, 1.0)


@pytest.mark.parametrize(("part", "factor"), [(1.0, 1.0), (0.25, 1.0), (1.0, 8.0)])
def test_rotary_embeddings_are_read_as_written(part: float, factor: float) -> None:
    assert HFConfig(rope_parameters(1e4, part, factor), "x").rotary() == (1e4, part, factor)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only models with 'silu'"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small', it must be a positive number"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', it must be true or false"),
        ("llama", {"vocab_size": True}, "vocab_size is True"),
        ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads 5 must divide"),
        ("llama-3.1", {"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 2}}, "low_freq_factor is 2"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"activation_function": "swish"}, "activation_function is 'swish'; known: gelu_new"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False"),
        ("opt", {"word_embed_proj_dim": 32}, "word_embed_proj_dim is 32; only models with 64"),
        ("gpt_neox", {"rotary_pct": 0.1}, "even number of dimensions"),
        ("palm", {"logit_scale": 0.0625}, "only Cohere models with use_qk_norm true, logit_scale 1"),
        ("palm", {"use_qk_norm": None}, "only Cohere models with use_qk_norm true"),
    ],
)
def test_what_a_layer_cannot_express_is_refused(name: str, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(name, **values)
    assert says in str(raised.value)
    assert str(raised.value).startswith("config.json")


def test_a_sliding_window_bounds_the_positions() -> None:
    assert read("mistral", sliding_window=16).max_position_embeddings == 16
    assert read("mistral", sliding_window=None).max_position_embeddings == 64
    assert read("qwen2", sliding_window=16).max_position_embeddings == 64
    assert read("qwen2", sliding_window=16, use_sliding_window=True).max_position_embeddings == 16


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": 3}'])
def test_a_file_that_describes_no_model(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="describes no model"):
        HFConfig.read(tmp_path)
    (tmp_path / "config.json").write_text(text[:-1])
    with pytest.raises(ConfigError, match="is damaged"):
        HFConfig.read(tmp_path)
