"""The k likeliest tokens of logits that are split over ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from megatron_distill.losses.teacher_signal import largest
from tests.losses.groups import join
from tests.support.ranks import ranks

TOKENS, VOCAB = 600, 24  # more tokens than are worked on at a time


def logits() -> torch.Tensor:
    """The first tokens of the vocabulary ever more likely, up to 1 - 1e-30."""
    found = 3 * torch.randn(TOKENS, VOCAB, generator=torch.Generator().manual_seed(0))
    found[:, 2:4] += torch.linspace(0, 70, TOKENS)[:, None]
    return found


def check(part: torch.Tensor, k: int, temperature: float, group: dist.ProcessGroup | None) -> None:
    """Against a softmax of everything."""
    before = part.clone()
    found = largest(part, k, temperature, group)
    assert torch.equal(part, before)
    p = (logits().double() / temperature).softmax(1)
    values, indices = p.topk(k, dim=1)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.log_probs.double().exp(), values, rtol=1e-5, atol=1e-7)
    others = p.log().scatter(1, indices, -torch.inf).logsumexp(1)
    torch.testing.assert_close(found.log_tail.double(), others, rtol=1e-6, atol=2e-6)
    assert found.log_outcomes(5, 9, torch.float64).shape == (4, k + 1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 5, VOCAB])
def test_of_a_whole_vocabulary(k: int, temperature: float) -> None:
    check(logits(), k, temperature, None)


@ranks(2)
def test_of_two_halves(rank: int) -> None:
    """k may be more than a rank holds, and all of them may be on one rank."""
    group = join(rank, 2)
    for k, temperature in ((1, 1.0), (5, 2.5), (20, 1.0), (VOCAB, 1.0)):
        check(logits().chunk(2, dim=1)[rank].contiguous(), k, temperature, group)
    lopsided = torch.zeros(3, 4) + 10 * (1 - rank) + torch.arange(4)
    assert largest(lopsided, 3, 1.0, group).indices.tolist() == [[3, 2, 1]] * 3
    dist.destroy_process_group()
