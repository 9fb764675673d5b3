"""The papers' figures, against each other."""

from __future__ import annotations

import statistics

import pytest

from megatron_distill.evaluation.suites import AVERAGES
from megatron_distill.planning.papers import PUBLISHED
from megatron_distill.report.published import SOURCES, load_published, look_up
from megatron_distill.report.setting import HALF, METHOD_NAMES, base, compressed, main_v1, main_v2

FIGURES = load_published()


def settings(source: str) -> set[object]:
    return {setting for found, setting, _ in FIGURES if found == source}


def test_every_row_is_there() -> None:
    assert {source: len(settings(source)) for source in SOURCES} == {
        "v1_table3": 6,
        "v1_table4": 4,
        "v1_table5": 22,
        "v2_table3": 10,
        "v2_table4": 8,
        "v2_table5": 12,
    }


@pytest.mark.parametrize(
    ("source", "average", "digit"), [("v1_table3", "paper13", 0.01), ("v2_table3", "paper12", 0.1)]
)
def test_averages_recompute_from_their_tasks(source: str, average: str, digit: float) -> None:
    for setting in settings(source):
        row = {quantity: figure.value for (s, at, quantity), figure in FIGURES.items() if (s, at) == (source, setting)}
        mean = statistics.fmean(row[task] for task in AVERAGES[average])
        assert row[average] == pytest.approx(mean, abs=digit)  # of rounded figures, rounded
        assert len(row) == len(AVERAGES[average]) + 2


def test_flops_are_those_that_our_formula_counts() -> None:
    for figure in PUBLISHED:
        model = {"palm-300m-paper": "300M", "palm-1.1b-paper": "1.1B"}[figure.model]
        setting = {"v1": main_v1, "v2": main_v2}[figure.version](model, "vanilla" if figure.distilled else "none")
        printed = FIGURES[f"{figure.version}_table4", setting, "paper_flops"]
        assert printed.text == f"{figure.printed}e18"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_ratios_of_flops_recompute(version: str) -> None:
    main = {"v1": main_v1, "v2": main_v2}[version]
    for model in HALF:
        for method in METHOD_NAMES:
            if (f"{version}_table4", main(model, method), "flops_ratio") not in FIGURES:
                continue
            of = [FIGURES[f"{version}_table4", main(model, m), "paper_flops"].value for m in (method, "none")]
            printed = FIGURES[f"{version}_table4", main(model, method), "flops_ratio"]
            assert printed.value == round(of[0] / of[1], len(printed.text.partition(".")[2]))


def test_tables_of_the_second_version_agree_where_they_print_the_same_model() -> None:
    both = settings("v2_table3") & settings("v2_table5")
    assert both == {base("300M"), base("1.1B"), main_v2("300M"), main_v2("1.1B")}
    for setting in both:
        for quantity in ("perplexity", "paper12"):
            assert FIGURES["v2_table3", setting, quantity].value == FIGURES["v2_table5", setting, quantity].value


def test_a_few_figures_as_printed() -> None:
    assert look_up(FIGURES, main_v1("300M"), "perplexity", ["v1_table3"]).text == "24.76"
    assert look_up(FIGURES, compressed("300M", "80B", "output", 8), "eight_drop", ["v1_table5"]).text == "-9.86"
    assert look_up(FIGURES, compressed("1.1B", "160B", "both", 12), "perplexity", ["v2_table5"]).text == "18.6"
    assert look_up(FIGURES, main_v2("1.1B", "homotopic"), "hours", ["v2_table4"]).value == 300
    assert look_up(FIGURES, compressed("1.1B", "160B", "output", 12), "eight_drop", ["v1_table5"]) is None


def test_the_first_source_that_has_it_counts() -> None:
    setting = main_v1("1.1B")
    assert look_up(FIGURES, setting, "perplexity", ["v1_table5", "v1_table3", "v2_table3"]).source == "v1_table3"
    assert look_up(FIGURES, setting, "perplexity", ["v2_table3", "v1_table3"]).text == "17.3"


def test_a_ratio_is_of_two_figures_of_one_table() -> None:
    ratio = look_up(FIGURES, main_v2("300M"), "perplexity_ratio", ["v2_table3"])
    assert (ratio.text, ratio.value) == ("1.420", pytest.approx(23.0 / 16.2))
    assert look_up(FIGURES, base("180M"), "perplexity_ratio", ["v2_table3"]) is None
