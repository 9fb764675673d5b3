"""Which parameters decay."""

from __future__ import annotations

import pytest
from torch import nn

from megatron_distill.config.sections import OptimizerConfig


@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_biases_norms_and_embeddings_do_not_decay(decay_embeddings: bool) -> None:
    from megatron_distill.optim.build import parameter_groups

    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(5, 4),
            "linear_in": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "frozen": nn.Linear(4, 4).requires_grad_(False),
        }
    )
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.5, decay_embeddings=decay_embeddings))
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    found = {n: decay_of.get(id(p)) for n, p in model.named_parameters()}
    assert found == {
        "embedding.weight": 0.5 if decay_embeddings else 0.0,
        "linear_in.weight": 0.5,
        "linear_in.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "frozen.weight": None,
        "frozen.bias": None,
    }
