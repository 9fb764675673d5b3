"""Every registered loss and divergence is the same on ranks that split the models as on one rank.

New ones are found by their registries. A missing or a doubled reduction over ranks shows here; whether one rank is
right is what each loss's own test and the parity table say.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from megatron_distill.losses.base import loss_names
from megatron_distill.losses.divergences import DIVERGENCES
from tests.support.ranks import launch
from tests.teachers.parity import SP, TSP, Case, base_run, distil_flags, steps, whole_tensors

ONE = Case((1, 1, 1), None)
SPLIT = [
    Case((2, 2, 1), (2, 1, 1), (SP, TSP)),
    Case((1, 1, 2), (1, 2, 1)),
    Case((2, 1, 1), (1, 1, 1), ("--bridge-wire", "logits")),
]


def methods() -> dict[str, list[str]]:
    """Each loss alone, and each divergence with a temperature."""
    found = {name: [name] for name in loss_names()}
    return found | {name: [f"vanilla:divergence={name},temperature=1.5"] for name in DIVERGENCES}


def run(case: Case, base: Path, corpus: Path, folder: Path) -> dict[str, Path]:
    """A step of each method; its run by its name."""
    folder.mkdir()
    common = [*distil_flags(base, corpus), *case.arguments(), "--no-normalise-losses"]
    launch(steps, case.ranks, 240.0, folder, {"common": common, "methods": methods()})
    return {name: folder / f"method{number}" for number, name in enumerate(methods())}


def logged(run: Path) -> dict[str, float]:
    """The losses of its step."""
    row = next(row for row in map(json.loads, (run / "metrics.jsonl").open()) if row["kind"] == "train")
    return {name: value for name, value in row.items() if name == "loss" or name.startswith("kd/")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    return base_run(tmp_path_factory.mktemp("base"), corpus)


@pytest.fixture(scope="module")
def alone(base: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return run(ONE, base, corpus, tmp_path_factory.mktemp("alone") / "runs")


@pytest.mark.parametrize("case", SPLIT, ids=lambda case: case.name)
def test_split_ranks_are_one_rank(case: Case, base: Path, alone: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    split = run(case, base, corpus, tmp_path / "runs")
    assert split.keys() >= {"vanilla", "minilm", "forward-kl", "skew-reverse-kl"}
    for name, folder in split.items():
        assert len(logged(folder)) >= 2
        assert logged(folder) == pytest.approx(logged(alone[name]), rel=1e-5), name
        wanted, found = whole_tensors(alone[name]), whole_tensors(folder)
        momenta = [key for key in wanted if key.startswith("optimizer.exp_avg.")]
        assert len(momenta) > 10
        for key in momenta:
            difference = torch.linalg.norm(found[key].double() - wanted[key].double())
            assert difference < 2e-5 * torch.linalg.norm(wanted[key].double()), (name, key)
