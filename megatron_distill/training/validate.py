"""Validation during a run."""

from __future__ import annotations

import torch

from .feed import Feed
from .step import run_microbatches, sum_over_role
from .student import Student


def validate(student: Student, feed: Feed) -> float | None:
    """Mean negative log-likelihood in nats a token over the validation windows; None without windows, or if none of
    their tokens counts (--eod-mask-loss on end tokens alone).

    Windows do not overlap in what they predict. Collective over the role.
    """
    if feed.valid is None:
        return None
    batches, count = feed.validation_batches()
    student.ddp.eval()
    with torch.no_grad():
        reports = run_microbatches(student, batches, count, forward_only=True)
    student.ddp.train()
    loss_sum, num_tokens, *_ = sum_over_role(reports, 0.0)
    return loss_sum / num_tokens if num_tokens else None
