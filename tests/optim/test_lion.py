"""Lion against its golden vectors and a plain loop."""

from __future__ import annotations

import pytest
import torch

from megatron_distill.optim.lion import Lion

GRADIENTS_AND_RATES = [(0.5, 1e-4), (-0.2, 2e-4), (0.02, 2e-4), (-1.0, 1e-4)]


def test_golden_vectors() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    lion = Lion([{"params": [w], "initial_lr": 2e-4}], lr=2e-4, betas=(0.9, 0.95), weight_decay=1e-4)
    seen = []
    for gradient, lr in GRADIENTS_AND_RATES:
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        lion.param_groups[0]["lr"] = lr
        lion.step()
        seen.append((w.item(), lion.state[w]["exp_avg"].item()))
    assert [x for x, _ in seen] == pytest.approx([0.9998500000, 0.9995500150, 0.9992500600, 0.9993000975], abs=5e-11)
    assert [m for _, m in seen] == pytest.approx([0.025, 0.01375, 0.0140625, -0.03664063], abs=5e-9)


@pytest.mark.parametrize("decay", ["schedule", "lr"])
def test_equals_a_plain_loop(decay: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    w, m, expected = torch.nn.Parameter(start.clone()), torch.zeros_like(start), start.clone()
    lion = Lion([w], lr=3e-3, betas=(0.9, 0.99), weight_decay=0.1, decay=decay)
    for step in range(5):
        gradient, lr = torch.randn(7, 3, generator=generator, dtype=torch.float64), 3e-3 / (step + 1)
        w.grad, lion.param_groups[0]["lr"] = gradient.clone(), lr
        lion.step()
        expected = expected * (1 - 0.1 * (lr / 3e-3 if decay == "schedule" else lr))
        expected = expected - lr * torch.sign(0.9 * m + (1 - 0.9) * gradient)
        m = 0.99 * m + (1 - 0.99) * gradient
    torch.testing.assert_close(w.data, expected, rtol=0, atol=1e-15)


def test_a_parameter_cut_into_shards_gets_the_same_bits() -> None:
    whole = torch.nn.Parameter(torch.randn(101, generator=torch.Generator().manual_seed(1)))
    parts = [torch.nn.Parameter(part.clone()) for part in whole.data.split([13, 60, 28])]
    lions = [Lion([whole], lr=1e-2), Lion(parts, lr=1e-2)]
    for seed in range(4):
        gradient = torch.randn(101, generator=torch.Generator().manual_seed(seed))
        whole.grad = gradient
        for part, piece in zip(parts, gradient.split([13, 60, 28]), strict=True):
            part.grad = piece.clone()
        for lion in lions:
            lion.step()
    assert torch.equal(whole.data, torch.cat([part.data for part in parts]))


def test_keeps_one_state_tensor_and_ignores_parameters_without_gradient() -> None:
    w, idle = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    lion = Lion([w, idle], lr=0.1, weight_decay=0.5)
    w.grad = torch.tensor([0.0, 1.0, -1.0])
    lion.step()
    assert list(lion.state[w]) == ["exp_avg"]
    assert w.tolist() == pytest.approx([0.5, 0.4, 0.6])
    assert idle.tolist() == [1, 1, 1]
