"""Run folders as training leaves them, with chosen numbers and no training."""

from __future__ import annotations

import json
import math
from pathlib import Path

NUMBERS = {  # name: (parameters, tokens, FLOPs, perplexity at the start and the end)
    "base": (1_000_000, 50_000, 3e11, 900.0, 20.0),
    "compressed": (600_000, 10_000, 4e10, 60.0, 25.0),
    "scratch": (600_000, 10_000, 3.6e10, 900.0, 40.0),
}


def write_run(folder: Path, name: str, *, perplexity: float | None = None, title: str = "CPU") -> Path:
    """A finished run of one of NUMBERS; returns its folder."""
    parameters, tokens, flops, first, last = NUMBERS[name]
    last = perplexity or last
    folder.mkdir(parents=True)
    result = {"parameters": parameters, "tokens": tokens, "flops": flops, "perplexity": last}
    result |= {"initial_perplexity": first, "seconds": 12.5, "tokens_per_s": tokens / 12.5}
    (folder / "result.json").write_text(json.dumps(result))
    run = {"started": "2026-01-02T03:04:05+0000", "device": title, "versions": {"torch": "2.6"}, "commit": None}
    (folder / "run.json").write_text(json.dumps(run | {"config": {"training": {"seed": 1}}}))
    rows = [{"kind": "valid", "consumed_tokens": 0, "loss": math.log(first)}]
    rows += [{"kind": "train", "consumed_tokens": tokens // 10 * i, "loss": 5.0 - i / 5} for i in range(1, 11)]
    rows += [{"kind": "valid", "consumed_tokens": tokens, "loss": math.log(last)}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
