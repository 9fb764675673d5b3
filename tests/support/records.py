"""Run folders as training leaves them, with chosen numbers and no training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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


LOSSES = {
    "none": (),
    "vanilla": ("vanilla",),
    "minilm": ("vanilla", "minilm"),
    "homotopic": ("vanilla", "hidden-states", "embedding-table", "attention-scores"),
}


def write_experiment(
    folder: Path,
    *,
    perplexity: float,
    label: Sequence[str],
    layout: str | None = None,
    removed: int = 0,
    gap_tokens: str = "0",
    loss: Sequence[str] = (),
    lm_weight: float = 1.0,
    seed: int = 1,
    depth: int = 24,
    valid: Mapping[int, float] | None = None,
    evaluations: Mapping[int, Mapping[str, float]] | None = None,
    started: str = "2026-01-02T03:04:05+0000",
    **result: object,
) -> Path:
    """A finished run of 100 steps with labels: pretrained if it has no layout. `valid` is the perplexity by step,
    `evaluations` the shares of tasks and means by step."""
    folder.mkdir(parents=True)
    distillation = {"loss": list(loss), "lm_weight": lm_weight}
    config = {
        "data": {"data_path": ["texts/corpus"], "seq_length": 128},
        "training": {"seed": seed},
        "pruning": {"pruning_layout": layout, "pruning_gap_tokens": gap_tokens},
        "distillation": distillation,
        "teacher": {"placement": "colocated" if loss else "none"},
        "logging": {"label": list(label)},
    }
    run = {
        "config": config,
        "shape": {"num_layers": depth, "hidden_size": 64, "vocab_size": 1024},
        "layout": {"tensor": 1, "pipeline": 1, "data": 2},
        "total_iters": 100,
        "removed_layers": list(range(1, removed + 1)),
        "load_from": "base/checkpoints/iter_0000100" if layout else None,
        "device": "CPU",
        "versions": {"torch": "2.6"},
        "commit": None,
        "started": started,
    }
    values = {
        "parameters": 1_000_000,
        "tokens": 50_000,
        "flops": 3.5e11,
        "paper_flops": 3e11 * (1.6 if loss else 1.0),
        "perplexity": perplexity,
        "iterations": 100,
        "seconds": 3600.0,
        "tokens_per_s": 50_000 / 3600,
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "result.json").write_text(json.dumps(values | result))
    steps = {0: 900.0, **(valid or {}), 100: perplexity}
    rows = [
        {"kind": "valid", "iteration": i, "consumed_tokens": 500 * i, "loss": math.log(p), "perplexity": p}
        for i, p in steps.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if evaluations:
        models = {f"iter_{step:07d}": _entry(shares) for step, shares in evaluations.items()}
        (folder / "evaluation.json").write_text(json.dumps({"format": 1, "models": models}))
    return folder


def _entry(shares: Mapping[str, float]) -> dict[str, object]:
    scores = {name: {"metric": "acc", "value": value} for name, value in shares.items()}
    means = ("paper12", "paper13", "eight")
    return {
        "scores": {name: score for name, score in scores.items() if name not in means},
        "averages": {name: score for name, score in scores.items() if name in means},
    }


def write_study(folder: Path) -> Path:
    """Runs of 300M: a base of 320B tokens with a step for every checkpoint before it, methods with two seeds each, and
    a few ablations. Claims agree but for one (`homotopic` before `minilm`) and one that the seeds hide (lambda 2)."""
    base = ["model=300M", "checkpoint=320B"]
    valid = {12: 30.0, 25: 25.0, 50: 20.0}
    scores = {100: {"piqa": 0.7, "paper12": 0.55, "eight": 0.5}, 50: {"piqa": 0.65, "paper12": 0.5, "eight": 0.4}}
    write_experiment(folder / "base", perplexity=16.0, label=base, valid=valid, evaluations=scores)
    student = ["model=300M", "checkpoint=160B", "gap=0"]
    main = {"layout": "max-gap", "removed": 12}
    for seed in (1, 2):
        for method, value in (("none", 30.0), ("vanilla", 31.0), ("minilm", 33.0), ("homotopic", 32.0)):
            losses = {"loss": LOSSES[method], "seed": seed, "label": student}
            evaluated = {100: {"piqa": 0.6, "paper12": 0.5 + seed / 100, "eight": 0.36}} if method == "none" else None
            where = folder / f"seed{seed}" / method
            write_experiment(where, perplexity=value + 0.1 * seed, evaluations=evaluated, **main, **losses)
    lambdas = {"loss": ["vanilla:weight=2"], "label": student}
    write_experiment(folder / "lambda2", perplexity=31.1, **main, **lambdas)
    for layout, value in (("input", 31.5), ("output", 40.0), ("both", 30.5), ("middle", 33.0)):
        write_experiment(folder / layout, perplexity=value, layout=layout, removed=12, label=student)
    apart = ["model=300M", "checkpoint=160B", "gap=100M"]
    write_experiment(folder / "apart", perplexity=30.9, gap_tokens="1024", label=apart, **main)
    write_experiment(folder / "half20", perplexity=60.0, depth=12, label=["model=180M", "checkpoint=20B"])
    write_experiment(folder / "half160", perplexity=24.0, depth=12, label=["model=180M", "checkpoint=160B"])
    return folder
