"""What runs stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.report.experiments import OutsideThePapersError, arrange, identify
from megatron_distill.report.records import find_runs, read_run
from megatron_distill.report.setting import Setting, base, compressed, main_v2
from tests.support.records import LOSSES, write_experiment, write_run

STUDENT = ["model=300M", "checkpoint=160B", "gap=0"]


def identified(folder: Path, **options: Any) -> Setting:
    options = {"perplexity": 30.0, "label": STUDENT, "layout": "max-gap", "removed": 12} | options
    return identify(read_run(write_experiment(folder / "run", **options)))


@pytest.mark.parametrize("method", list(LOSSES))
def test_methods(tmp_path: Path, method: str) -> None:
    assert identified(tmp_path, loss=LOSSES[method]) == main_v2("300M", method)


def test_a_pretrained_model(tmp_path: Path) -> None:
    label = ["model=610M", "checkpoint=20B"]
    assert identified(tmp_path, layout=None, removed=0, label=label) == base("610M", "20B")


def test_weight_gap_and_cross_entropy(tmp_path: Path) -> None:
    label = ["model=1.1B", "checkpoint=160B", "gap=500M"]
    setting = identified(tmp_path, label=label, gap_tokens="4096", loss=["vanilla:weight=4"], lm_weight=0.0)
    assert (setting.gap, setting.method, setting.weight, setting.lm_weight) == ("500M", "vanilla", 4.0, 0.0)


def test_layers_count_as_of_24(tmp_path: Path) -> None:
    assert identified(tmp_path, depth=12, removed=4).removed == 8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label": []}, "no --label"),
        ({"label": ["model=300M"]}, "no label checkpoint; the papers have 20B, 40B"),
        ({"label": ["model=7B", "checkpoint=160B"]}, "label model=7B; the papers have 300M"),
        ({"label": ["model=300M", "checkpoint=160B"], "gap_tokens": "1M"}, "no label gap; the papers have 0, 100M"),
        ({"layout": None, "removed": 0, "loss": ["vanilla"]}, "neither pretrained from scratch nor"),
        ({"loss": ["vanilla", "hidden-states"]}, "--loss vanilla hidden-states is no method"),
        ({"loss": ["vanilla:temperature=2"]}, "is no method"),
        ({"loss": ["vanilla:weight=2", "minilm"]}, "is no method"),
        ({"loss": ["vanilla:weight=-1"]}, "must be a number"),
        ({"label": [*STUDENT[:2], "gap=100M"]}, "label gap=100M speaks against --pruning-gap-tokens 0"),
        ({"gap_tokens": "1M"}, "label gap=0 speaks against --pruning-gap-tokens 1M"),
        ({"tokens": None}, "do not say how large"),
        ({"depth": 10, "removed": 4}, "4 of 10 layers removed, which is no number of 24"),
    ],
)
def test_others_say_why(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OutsideThePapersError, match=reason):
        identified(tmp_path, **options)


def test_records_of_older_versions_are_outside(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "old", "base"))
    study = arrange([run])
    assert not study.measured and study.outside == ((run, "no --label"),)


def test_incomplete_records_are_outside(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "run", perplexity=30.0, label=STUDENT, layout="input", removed=8)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: run[key] for key in run if key != "shape"}))
    ((_, why),) = arrange([read_run(folder)]).outside
    assert "damaged" in why


def pretrained(folder: Path, **options: Any) -> dict[Setting, Any]:
    write_experiment(folder / "long", perplexity=16.0, label=["model=300M", "checkpoint=320B"], **options)
    return dict(arrange(find_runs([folder])[0]).measured)


def test_a_base_has_what_it_was_on_the_way(tmp_path: Path) -> None:
    # Of 320B in 100 steps: 40B after 12 (12.5 to even), 80B after 25, 160B after 50.
    evaluations = {25: {"piqa": 0.6, "eight": 0.5}}
    found = pretrained(tmp_path, valid={11: 31.0, 13: 29.0, 20: 26.0, 24: 25.0, 50: 20.0}, evaluations=evaluations)
    assert {setting.checkpoint: m.perplexity for setting, (m,) in found.items()} == {
        "320B": 16.0,
        "40B": 31.0,  # the nearest before
        "80B": 25.0,
        "160B": 20.0,
    }
    assert found[base("300M", "80B")][0].scores == {"piqa": 0.6, "eight": 0.5}
    assert found[base("300M", "160B")][0].scores == {}


def test_a_validation_long_before_stands_for_nothing(tmp_path: Path) -> None:
    found = pretrained(tmp_path, valid={44: 21.0})
    assert found[base("300M", "160B")][0].perplexity is None


def test_a_run_made_for_a_checkpoint_goes_before_one_on_the_way(tmp_path: Path) -> None:
    write_experiment(tmp_path / "own", perplexity=18.0, label=["model=300M", "checkpoint=160B"])
    (measured,) = pretrained(tmp_path, valid={50: 20.0})[base("300M", "160B")]
    assert (measured.perplexity, measured.final) == (18.0, True)


def test_of_two_runs_on_the_way_the_longer_counts(tmp_path: Path) -> None:
    label = ["model=300M", "checkpoint=160B"]
    write_experiment(tmp_path / "own", perplexity=18.0, label=label, tokens=25_000, valid={50: 26.5})
    found = pretrained(tmp_path, valid={25: 25.0, 50: 20.0})
    assert [m.perplexity for m in found[base("300M", "80B")]] == [25.0]
    assert [m.perplexity for m in found[base("300M", "160B")]] == [18.0]


def test_seeds_stand_together_and_the_newer_of_equal_ones_counts(tmp_path: Path) -> None:
    setting = {"label": STUDENT, "layout": "max-gap", "removed": 12}
    for seed, started, value in ((1, "2026-01-01", 30.0), (1, "2026-01-02", 31.0), (2, "2026-01-01", 33.0)):
        write_experiment(tmp_path / f"{started}-{seed}", perplexity=value, seed=seed, started=started, **setting)
    study = arrange(find_runs([tmp_path])[0])
    assert [m.perplexity for m in study.find(main_v2("300M"))] == [31.0, 33.0]
    assert [(run.folder.name, why) for run, why in study.outside] == [
        ("2026-01-01-1", "a newer run has the same setting and seed")
    ]
    assert study.typical_spread == pytest.approx(2**0.5 / 32)


def test_before_compression() -> None:
    assert compressed("300M", "80B", "input", 8).origin == base("300M", "80B")
    assert base("610M", "20B").origin == base("1.1B", "160B")
    assert base("300M", "80B").origin == base("300M", "80B")


@pytest.mark.parametrize(
    ("layout", "removed", "obstacle"),
    [
        ("max-gap", 12, ""),
        ("alt-output", 8, ""),
        ("alt-input", 12, "does not fit 24 layers"),
        ("alt-both", 12, "the same layers as max-gap"),
    ],
)
def test_layouts_that_cannot_or_need_not_run(layout: str, removed: int, obstacle: str) -> None:
    assert compressed("1.1B", "160B", layout, removed).obstacle == obstacle
