"""Validation during a run."""

from __future__ import annotations

import time

import torch

from .feed import Feed
from .signals import StopAsked, StopSignals
from .step import run_microbatches, sum_over_role
from .student import Student

_LOOK_SECONDS = 2.0
"""Between two looks at the signals."""


def validate(student: Student, feed: Feed, signals: StopSignals) -> float | None:
    """Mean negative log-likelihood in nats a token over the validation windows; None without windows, or if none of
    their tokens counts (--eod-mask-loss on end tokens alone).

    Windows do not overlap in what they predict. Collective over the role.

    Raises:
        StopAsked: a rank was asked to stop meanwhile; the validation is dropped.
    """
    if feed.valid is None:
        return None
    batches, count = feed.validation_batches()
    reports: list[torch.Tensor] = []
    student.ddp.eval()
    try:
        done, at_once, begun = 0, student.plan.layout.num_microbatches, time.monotonic()
        while done < count:
            # All ranks take the same number of micro-batches, so they decide it from the same figure.
            asked, seconds = signals.received_by_any(time.monotonic() - begun)
            if asked:
                raise StopAsked
            if done:
                at_once = max(1, int(at_once * min(4.0, _LOOK_SECONDS / max(seconds, 1e-9))))
            at_once, begun = min(at_once, count - done), time.monotonic()
            with torch.no_grad():
                reports += run_microbatches(student, batches, at_once, forward_only=True)
            done += at_once
    finally:
        student.ddp.train()
    loss_sum, num_tokens, *_ = sum_over_role(reports, 0.0)
    return loss_sum / num_tokens if num_tokens else None
