"""Losses by name, and what all of them have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.losses.base import LossInputs, build_loss, loss_names
from megatron_distill.losses.teacher_signal import HiddenTeacher
from megatron_distill.tap import Tap

SEQ, BATCH, HEADS, DIM, VOCAB = 6, 2, 4, 3, 16
LAYERS = (0, 4, 11)
HEADWISE = ("queries", "keys", "values", "attention_output")


def test_every_file_is_found() -> None:
    homotopic = ("attention-outputs", "attention-scores", "embedding-table", "hidden-states")
    assert loss_names() == (*homotopic, "minilm", "vanilla")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("minlim", {}, "did you mean minilm"),
        ("nothing-alike", {}, "there are attention-outputs, "),
        ("minilm", {"heads": 4}, "does not take heads; it takes layer, relation_heads"),
        ("hidden-states", {"weight": 4}, "it takes nothing"),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_loss(name, **options)


def show(seed: int) -> dict[Tap, torch.Tensor]:
    """All a model of some layers can show."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, requires_grad=True)

    shown = {Tap("embedding"): normal(VOCAB, HEADS * DIM), Tap("output_weight"): normal(VOCAB, HEADS * DIM)}
    shown[Tap("final_hidden")] = normal(SEQ, BATCH, HEADS * DIM)
    for layer in LAYERS:
        shown[Tap("hidden", layer)] = normal(SEQ, BATCH, HEADS * DIM)
        shown |= {Tap(kind, layer): normal(SEQ, BATCH, HEADS, DIM) for kind in HEADWISE}
    return shown


@pytest.mark.parametrize("name", loss_names())
def test_contract(name: str) -> None:
    """Needs no more than it says; positive and fp32 with gradients for what it taps; 0 against itself."""
    loss, student, teacher = build_loss(name), show(1), show(2)
    taps = loss.taps(LAYERS)

    def against(other: dict[Tap, torch.Tensor]) -> dict[str, Any]:
        signal = HiddenTeacher(other[Tap("final_hidden")].detach().flatten(0, 1), other[Tap("output_weight")].detach())
        return loss(
            LossInputs(
                layers=LAYERS[-1:] if name == "minilm" else LAYERS,
                student={tap: student[tap] for tap in taps},
                teacher={tap: other[tap].detach() for tap in taps},
                labels=torch.arange(SEQ * BATCH).view(SEQ, BATCH),
                mask=torch.ones(SEQ, BATCH),
                group=None,
                teacher_signal=signal,
            )
        )

    found = against(teacher)
    assert set(loss.components) == set(found) - {"lm"}
    assert all(x > 0 and x.dtype == torch.float32 and x.shape == () for x in found.values())
    gradients = torch.autograd.grad(sum(found.values()), [student[tap] for tap in taps])
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    assert all(x == 0 for component, x in against(student).items() if component != "lm")


def test_options_reach_the_loss() -> None:
    assert build_loss("vanilla", divergence="jsd", beta=0.5, temperature=2.0).which.name == "jsd"  # type: ignore
    assert build_loss("minilm", layer=0).taps(LAYERS)[0] == Tap("queries", 0)
    with pytest.raises(ConfigError, match="alpha"):
        build_loss("vanilla", divergence="jsd", alpha=0.5).which  # type: ignore  # noqa: B018
