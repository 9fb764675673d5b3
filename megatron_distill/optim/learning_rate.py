"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    iteration: int,
    *,
    peak: float,
    warmup_iters: int,
    total_iters: int,
    min_ratio: float = 0.1,
    style: Literal["cosine", "linear", "constant"] = "cosine",
) -> float:
    """The learning rate of step `iteration`, counted from 1: linear from 0 to `peak` over the warm-up, then down to
    `min_ratio` of it at `total_iters`.

    Cosine as MosaicML's Composer has it: peak (r + (1 - r) (1 + cos(pi x)) / 2), x from 0 to 1 after the warm-up.
    """
    if iteration < warmup_iters:
        return peak * iteration / warmup_iters
    if style == "constant":
        return peak
    done = min(1.0, (iteration - warmup_iters) / max(1, total_iters - warmup_iters))
    left = 1 - done if style == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (min_ratio + (1 - min_ratio) * left)
