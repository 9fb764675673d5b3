"""What holds for every family, registered today or later."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import shape_from_dict
from megatron_distill.config.run import Layout
from megatron_distill.models.families import all_families, find_exported, find_family, find_model_type
from megatron_distill.models.families.hf_config import HFConfig
from tests.support.public_models import MODELS, public_shape
from tests.support.ranks import launch
from tests.support.worlds import student_world


def test_every_family_has_a_model_to_test() -> None:
    assert set(all_families()) == {find_exported(public_shape(name)).name for name in MODELS}
    for name, family in all_families().items():
        assert find_family(name) is family
        assert find_model_type(family.model_type, "x") is family


@pytest.mark.parametrize("name", ["mixtral", "cohere2", "mpt", "gptj"])
def test_another_architecture_is_not_suggested_for_one_that_transformers_knows(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_model_type(name, "x")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean llama"):
        find_model_type("lama", "x")


@pytest.mark.parametrize("name", MODELS)
def test_a_shape_survives_both_files_that_it_is_written_to(name: str) -> None:
    shape = public_shape(name)
    assert shape_from_dict(json.loads(json.dumps(dataclasses.asdict(shape)))) == shape
    family = find_exported(shape)
    own = family.write_config(shape, tuple(range(shape.num_layers)))
    written = json.loads(json.dumps({"model_type": family.model_type} | own))
    assert family.read_config(HFConfig(written, "config.json")) == shape


@pytest.mark.parametrize("name", MODELS)
def test_rules_undo_themselves(name: str) -> None:
    shape = public_shape(name)
    rules = find_exported(shape).rules(shape, (0, 2))
    ours, theirs = [rule.ours for rule in rules], [name for rule in rules for name in rule.theirs]
    assert len(set(ours)) == len(ours)
    assert len(set(theirs)) == len(theirs)
    for rule in rules:
        whole = torch.randn(rule.shape)
        if "embedding.word" in rule.ours or "output_layer" in rule.ours:
            whole[shape.vocab_size :] = 0
        parts = rule.cut(whole)
        assert [tuple(part.shape) for part in parts] == list(rule.theirs.values()), rule.ours
        assert torch.equal(rule.join(*parts), whole), rule.ours


def check_names_and_sizes(rank: int, name: str) -> None:
    from megatron_distill.models.build import BuildOptions, build_decoder

    with student_world():
        shape = public_shape(name)
        layout = Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)
        model = build_decoder(shape, (0, 2), layout, BuildOptions(dtype=torch.float32, attention_backend="sdpa"))
        built = {model.original_name(key): tuple(p.shape) for key, p in model.named_parameters()}
        rules = find_exported(shape).rules(shape, (0, 2))
        assert {rule.ours: rule.shape for rule in rules} == built
        assert sum(p.numel() for p in model.parameters()) == shape.num_parameters(2)


@pytest.mark.parametrize("name", MODELS)
def test_there_is_a_rule_for_every_parameter(name: str, tmp_path: Path) -> None:
    launch(check_names_and_sizes, 1, 60.0, tmp_path, {"name": name})


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(ConfigError, match="the model family palmm is not known; there are .*palm"):
        find_family("palmm")
    with pytest.raises(ConfigError, match="X has model_type bert, which is not known; known: .*llama"):
        find_model_type("bert", "X")
