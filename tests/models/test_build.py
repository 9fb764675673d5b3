"""From a shape to a model: sizes, initial weights, stages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from megatron_distill.config.model import ModelConfig
from megatron_distill.config.run import Layout
from tests.support.ranks import launch, ranks
from tests.support.worlds import student_world


@pytest.mark.parametrize(
    ("layers", "stages", "wanted"),
    [
        ((0, 1, 2, 3), 2, [(0, 1), (2, 3)]),
        ((0, 2, 4, 5, 7), 2, [(0, 2, 4), (5, 7)]),
        ((0, 3), 1, [(0, 3)]),
        ((0, 1, 2, 5), 3, [(0, 1), (2,), (5,)]),
    ],
)
def test_stages_are_contiguous_and_balanced(layers: tuple, stages: int, wanted: list) -> None:
    from megatron_distill.models.build import stage_layers

    assert [stage_layers(layers, stages, stage) for stage in range(stages)] == wanted


def check_size(rank: int, preset: str) -> None:
    from megatron_distill.models.build import BuildOptions, Decoder

    with student_world():
        shape = ModelConfig(model=preset).shape()
        layout = Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)
        with torch.device("meta"):
            model = Decoder(shape, (0, 1), layout, BuildOptions(dtype=torch.bfloat16, attention_backend="sdpa"))
        assert sum(p.numel() for p in model.parameters()) == shape.num_parameters(2)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("preset", ["palm-300m", "palm-300m-paper"])
def test_the_model_has_the_parameters_its_shape_counts(preset: str, tmp_path: Path) -> None:
    launch(check_size, 1, 60.0, tmp_path, {"preset": preset})


@ranks(1)
def test_initial_weights(rank: int) -> None:
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise

    with student_world():
        shape = ModelConfig(model="palm-tiny-paper", hidden_size=128, num_layers=3).shape()
        layout = Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)
        options = BuildOptions(dtype=torch.float32, attention_backend="sdpa")
        model = build_decoder(shape, (0, 1, 2), layout, options)
        initialise(model, seed=1)
        for name, p in model.named_parameters():
            if name.endswith("bias") or "_bias" in name:
                assert not p.any(), name
            elif "norm" in name:
                assert (p == 1).all(), name
            else:
                std = 0.02 / math.sqrt(2 * 3) if "linear_out" in name else 0.02
                assert p.std().item() == pytest.approx(std, rel=0.02), name
                assert abs(p.mean().item()) < std / 50, name
        first = model.decoder.layers[0].linear_in.weight
        assert not torch.equal(first, model.decoder.layers[1].linear_in.weight)
        again = build_decoder(shape, (0, 1, 2), layout, options)
        initialise(again, seed=1)
        assert torch.equal(first, again.decoder.layers[0].linear_in.weight)
        initialise(again, seed=2)
        assert not torch.equal(first, again.decoder.layers[0].linear_in.weight)
        assert model.shared_embedding_or_output_weight() is model.embedding.word_embeddings.weight
