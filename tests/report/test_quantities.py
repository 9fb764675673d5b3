"""Numbers of measured models, and how they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from megatron_distill.report import quantities as q
from megatron_distill.report.experiments import Study, arrange
from megatron_distill.report.records import find_runs
from megatron_distill.report.setting import Setting, base, compressed, main_v2
from tests.support.records import write_experiment, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return arrange(find_runs([write_study(tmp_path_factory.mktemp("study"))])[0])


def test_mean_and_deviation_of_seeds(study: Study) -> None:
    found = q.estimate(study, main_v2("300M"), q.PERPLEXITY)
    assert (found.mean, found.std) == (pytest.approx(30.15), pytest.approx(0.1 / 2**0.5))
    assert [run.parent.name for run in found.runs] == ["seed1", "seed2"]
    assert q.estimate(study, base("300M"), q.PERPLEXITY).std is None


def test_relative_to_the_model_before(study: Study) -> None:
    assert q.estimate(study, main_v2("300M"), q.PERPLEXITY_RATIO).mean == pytest.approx(30.15 / 20)
    assert q.estimate(study, base("180M", "20B"), q.PERPLEXITY_RATIO).mean == pytest.approx(60 / 20)
    assert q.estimate(study, base("300M"), q.PERPLEXITY_RATIO).mean == 1
    assert q.estimate(study, main_v2("300M"), q.EIGHT_DROP).mean == pytest.approx(100 * (0.36 - 0.4) / 0.4)


def test_shares_become_percent(study: Study) -> None:
    assert q.estimate(study, main_v2("300M"), q.AVERAGE_12).mean == pytest.approx(51.5)
    assert q.estimate(study, main_v2("300M"), q.TASKS["piqa"]).mean == pytest.approx(60)


def test_costs(study: Study) -> None:
    vanilla = main_v2("300M", "vanilla")
    assert q.estimate(study, vanilla, q.FLOPS_RATIO).mean == pytest.approx(1.6)
    assert q.estimate(study, vanilla, q.HOURS).mean == 1
    assert q.estimate(study, vanilla, q.ACCELERATORS).mean == 2
    assert q.estimate(study, vanilla, q.ACCELERATOR_HOURS).mean == 2


def test_recorded_costs_go_before_computed_ones(tmp_path: Path) -> None:
    costs = {"accelerators": 6, "accelerator_hours": 5.5, "mfu": 0.41}
    write_experiment(tmp_path / "run", perplexity=16.0, label=["model=300M", "checkpoint=160B"], **costs)
    study = arrange(find_runs([tmp_path])[0])
    found = [q.estimate(study, base("300M"), asked).mean for asked in (q.ACCELERATORS, q.ACCELERATOR_HOURS, q.MFU)]
    assert found == [6, 5.5, 0.41]


def test_ranks_of_a_teacher_count(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "run", perplexity=16.0, label=["model=300M", "checkpoint=160B"])
    text = (folder / "run.json").read_text().replace('"placement": "none"', '"placement": "separate"')
    (folder / "run.json").write_text(text.replace('"separate"', '"separate", "tensor_model_parallel_size": 4'))
    assert q.estimate(arrange(find_runs([tmp_path])[0]), base("300M"), q.ACCELERATORS).mean == 2 + 4


@pytest.mark.parametrize(
    ("setting", "quantity", "reason"),
    [
        (main_v2("1.1B"), q.PERPLEXITY, "not run"),
        (compressed("1.1B", "160B", "alt-input", 12), q.PERPLEXITY, "does not fit 24 layers"),
        (main_v2("300M", "vanilla"), q.AVERAGE_12, "not evaluated on tasks"),
        (main_v2("300M"), q.AVERAGE_13, "not all tasks evaluated"),
        (main_v2("300M"), q.TASKS["cb"], "not evaluated"),
        (main_v2("300M"), q.MFU, "device's peak unknown"),
        (base("300M"), q.HOURS, "not recorded"),  # a checkpoint on the way
    ],
)
def test_what_is_missing_says_why(study: Study, setting: Setting, quantity: q.Quantity, reason: str) -> None:
    with pytest.raises(q.MissingError, match=reason):
        q.estimate(study, setting, quantity)


def test_without_a_base_there_is_no_ratio(tmp_path: Path) -> None:
    label = ["model=300M", "checkpoint=160B"]
    write_experiment(tmp_path / "run", perplexity=30.0, label=label, layout="max-gap", removed=12, loss=["vanilla"])
    study = arrange(find_runs([tmp_path])[0])
    for quantity, reason in ((q.PERPLEXITY_RATIO, "no base run"), (q.FLOPS_RATIO, "no teacher-free run")):
        with pytest.raises(q.MissingError, match=reason):
            q.estimate(study, main_v2("300M", "vanilla"), quantity)


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        (q.PERPLEXITY, 23.456, "23.46"),
        (q.PERPLEXITY, 1234.5, "1,234.50"),
        (q.PERPLEXITY, 123456.0, "123,456"),
        (q.EIGHT_DROP, -2.4, "−2.40"),
        (q.PAPER_FLOPS, 33.31e18, "3.33e19"),
        (q.HOURS, 26.5, "26.5"),
        (q.HOURS, 0.04567, "0.0457"),
        (q.TOKENS_PER_S, 7185.4, "7,190"),
        (q.HOURS, 2e-6, "2.00e−6"),
    ],
)
def test_written_shortly(quantity: q.Quantity, value: float, text: str) -> None:
    assert quantity.text(value) == text


@pytest.mark.parametrize(
    ("quantity", "ours", "published", "text"),
    [
        (q.PERPLEXITY_RATIO, 1.508, 1.42, "+0.088"),
        (q.AVERAGE_12, 51.5, 53.2, "−1.7"),
        (q.AVERAGE_12, 53.21, 53.2, "±0"),
        (q.PAPER_FLOPS, 3e11, 3e18, "×1.0e−7"),
        (q.HOURS, 53.0, 26.5, "×2.0"),
    ],
)
def test_differences(quantity: q.Quantity, ours: float, published: float, text: str) -> None:
    assert quantity.difference(ours, published) == text


def test_a_counted_cost_has_no_deviation() -> None:
    assert (q.PAPER_FLOPS.spread(0.0), q.HOURS.spread(0.01234), q.PERPLEXITY.spread(0.071)) == ("", "± 0.012", "± 0.07")


def test_settings_differ_in_one_thing(study: Study) -> None:
    assert study.find(replace(main_v2("300M", "vanilla"), weight=2.0)) != study.find(main_v2("300M", "vanilla"))
