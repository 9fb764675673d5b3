"""What the benchmarks share: two sides measured in turns in one run, and one JSON object a line for each figure."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch


def seconds_in_turns(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int, warm_up: int = 2
) -> tuple[float, float]:
    """Median seconds of a call of each, after a warm-up.

    The sides take turns, and who is first alternates, so that a machine that gets slower or faster does so for both.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(warm_up + rounds):
        order = ((0, ours), (1, peer)) if i % 2 else ((1, peer), (0, ours))
        for side, call in order:
            synchronize()
            begun = time.perf_counter()
            call()
            synchronize()
            if i >= warm_up:
                times[side].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(name: str, ours: float, peer: float, unit: str, **more: object) -> None:
    """One figure; the ratio is ours over the peer's."""
    row = {"name": name, "ratio": round(ours / peer, 4), "ours": round(ours, 4), "peer": round(peer, 4), "unit": unit}
    print(json.dumps(row | more), flush=True)
