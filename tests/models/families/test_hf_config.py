"""What a config.json may say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelShape, check_sequence
from megatron_distill.models.families import Family, find_model_type
from megatron_distill.models.families.hf_config import HFConfig, rope_parameters
from tests.support.public_models import MODELS

LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}


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
    assert HFConfig(values, "x").rotary(2048) == (5e5, 1.0, 1.0)


@pytest.mark.parametrize(("part", "factor"), [(1.0, 1.0), (0.25, 1.0), (1.0, 8.0)])
def test_rotary_embeddings_are_read_as_written(part: float, factor: float) -> None:
    assert HFConfig(rope_parameters(1e4, part, factor), "x").rotary(131072) == (1e4, part, factor)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only models with 'silu'"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small', it must be above 0 and at most 1"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', it must be true or false"),
        ("llama", {"vocab_size": True}, "vocab_size is True"),
        ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads 5 must divide"),
        ("llama-3.1", {"rope_parameters": LLAMA3 | {"low_freq_factor": 2}}, "low_freq_factor is 2"),
        ("llama-3.1", {"rope_parameters": LLAMA3}, "original_max_position_embeddings is 64; only models with 8192"),
        ("llama", {"rope_parameters": 5}, "rope_parameters is 5, it must be an object"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters differs from layer to layer"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps is null"),
        ("llama", {"rms_norm_eps": float("inf")}, "rms_norm_eps is inf"),
        ("llama", {"attention_bias": None}, "attention_bias is null"),
        ("llama", {"max_position_embeddings": None}, "max_position_embeddings is null"),
        ("gpt2", {"activation_function": ["relu"]}, "activation_function is ['relu']; known"),
        ("gpt2", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; only models with True"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "but no layer has a sliding_window"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "layer_types must be 4 times full_attention or"),
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


SLIDING = {"sliding_window": 16, "use_sliding_window": True}
WINDOWS = {
    "mistral": ("mistral", {"sliding_window": 16}, (16, ())),
    "mistral without one": ("mistral", {"sliding_window": None}, (None, ())),
    "qwen2 that does not use it": ("qwen2", {"sliding_window": 16}, (None, ())),
    "qwen2 from a layer on": ("qwen2", SLIDING | {"max_window_layers": 3}, (16, (0, 1, 2))),
    "qwen2 from no layer on": ("qwen2", SLIDING | {"max_window_layers": 4}, (None, ())),
    "qwen3 by layer types": (
        "qwen3",
        SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * 2},
        (16, (1, 3)),
    ),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_a_sliding_window_is_kept(case: str) -> None:
    """It bounds sequences, and a model of some of the layers has it where the one before had it."""
    from transformers import AutoConfig

    name, values, wanted = WINDOWS[case]
    shape = read(name, **values)
    assert (shape.block.window, shape.block.full_layers) == wanted
    assert shape.max_position_embeddings == 64 and shape.context_length == (wanted[0] or 64)
    written = find_model_type(MODELS[name][0], "x").write_config(shape, (1, 2, 3))
    theirs = AutoConfig.for_model(MODELS[name][0], **written)
    if wanted[0] is None:
        assert theirs.sliding_window is None
        return
    check_sequence(shape, 16, "a prompt", "it")
    with pytest.raises(ConfigError, match="a prompt must be at most 16, the sliding window of it"):
        check_sequence(shape, 17, "a prompt", "it")
    assert theirs.sliding_window == 16
    if name != "mistral":
        slides = [layer not in wanted[1] for layer in (1, 2, 3)]
        assert [kind == "sliding_attention" for kind in theirs.layer_types] == slides


def read_or_refusal(family: Family, values: dict[str, Any]) -> ModelShape | str:
    try:
        return family.read_config(HFConfig(values, "config.json"))
    except ConfigError as error:
        return str(error).replace("config.json: rope_parameters has", "config.json has")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "palm-paper"])
def test_a_missing_key_means_what_transformers_takes_it_for(name: str) -> None:
    """Or the folder is refused, because it says too little."""
    from transformers import AutoConfig

    model_type, values = MODELS[name]
    family = find_model_type(model_type, name)
    whole = AutoConfig.for_model(model_type, **values).to_dict()
    rope = whole.get("rope_parameters") or {}
    for key in {*whole, *rope} - {"model_type"}:
        part = {k: v for k, v in rope.items() if k != key}
        less = {k: v for k, v in (whole | {"rope_parameters": part} if rope else whole).items() if k != key}
        ours = read_or_refusal(family, copy.deepcopy(less))
        if ours != f"config.json has no {key}" and key not in LLAMA3:  # without these transformers ends with a KeyError
            assert ours == read_or_refusal(family, AutoConfig.for_model(**less).to_dict()), key


def test_other_names_of_a_key() -> None:
    from transformers import AutoConfig

    values = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "max_position_embeddings": 99}
    ours = find_model_type("gpt2", "x").read_config(HFConfig(values, "x"))
    theirs = AutoConfig.for_model("gpt2", **values).to_dict()
    assert ours == find_model_type("gpt2", "x").read_config(HFConfig(theirs, "x"))
    assert (ours.hidden_size, ours.num_attention_heads, ours.num_layers) == (48, 3, 2)


def test_layers_are_not_counted_beyond_the_tensors() -> None:
    model_type, values = MODELS["qwen2"]
    config = HFConfig(values | {"model_type": model_type, "num_hidden_layers": 10**7}, "x", tensors=40)
    with pytest.raises(ConfigError, match="num_hidden_layers is 10000000, but the folder holds only 40 tensors"):
        find_model_type(model_type, "x").read_config(config)


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": 3}'])
def test_a_file_that_describes_no_model(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"describes no model|config.json is damaged: expected `object`"):
        HFConfig.read(tmp_path)
    (tmp_path / "config.json").write_text(text[:-1])
    with pytest.raises(ConfigError, match="is damaged"):
        HFConfig.read(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_beyond_any_model_are_refused(name: str) -> None:
    own = MODELS[name][1]
    for key, value in own.items():
        if type(value) in (int, float):
            for huge in (10**31, 10**400, -(1 << 70)):
                try:
                    shape = read(name, **{key: huge})
                except ConfigError as error:
                    assert key in str(error) and len(str(error)) < 200
                else:  # a number that says nothing of the model
                    assert shape == read(name)
