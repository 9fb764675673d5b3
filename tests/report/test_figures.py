"""The papers' figures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from megatron_distill.report.drawing import SERIES, alone
from megatron_distill.report.figures import learning_curves, sweep_figure
from megatron_distill.report.papers import PapersReport
from megatron_distill.report.sweeps import LAMBDA, METHODS_V2, NO_LM, SWEEPS, WHERE_V1, WHERE_V2
from megatron_distill.report.table import Sides


def svgs(drawings: tuple[str, ...]) -> tuple[str, ...]:
    """The drawings, after a look at whether they are SVG."""
    for svg in drawings:
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    return drawings


def test_a_panel_a_model(papers_report: PapersReport) -> None:
    of_300m, tasks_of_300m, of_1b, tasks_of_1b = svgs(papers_report.figures["where_v2"])
    for word in ("300M", "max-gap", "output", "160B, published"):
        assert f">{word}<" in of_300m
    assert ">1.1B<" in of_1b and ">160B<" not in of_1b  # published values alone
    assert ">perplexity / before<" in of_1b and ">average of 12<" in tasks_of_1b and ">160B<" in tasks_of_300m


def test_one_printed_value_is_no_figure(sides: Sides) -> None:
    assert len(svgs(sweep_figure(sides, LAMBDA))) == 1  # 1.1B: only lambda 1 is printed, and nothing ran
    assert ">1.1B<" not in "".join(sweep_figure(sides, NO_LM))
    for svg in svgs(sweep_figure(sides, WHERE_V1)):
        assert ">perplexity / before<" not in svg and "change of the average of 8" in svg


def test_colours_follow_the_page(papers_report: PapersReport) -> None:
    for svg in svgs(papers_report.figures["methods"]):
        assert f"var(--series-0, {SERIES[0]})" in svg and "var(--soft, " in svg
        styles = re.findall(r'style="([^"]*)"', svg)
        plain = [style for style in styles if re.search(r": #(?!000000|262626)[0-9a-f]{6}", style)]
        assert plain == []


def test_a_drawing_alone_has_its_colours(papers_report: PapersReport) -> None:
    (svg, *_) = papers_report.figures["methods"]
    lone = ElementTree.fromstring(alone(svg))
    style, paper = lone[0], lone[1]
    assert style.tag.endswith("style") and paper.tag.endswith("rect") and "var(--paper)" in paper.attrib["style"]
    used = set(re.findall(r"var\(--([\w-]+)", alone(svg)))
    assert len(used) > 4 and all(f"--{name}: #" in str(style.text) for name in used)
    assert "max-width" not in alone(svg)  # that is the page's


def test_ids_do_not_repeat_with_other_content(papers_report: PapersReport) -> None:
    text = "".join(svg for drawings in papers_report.figures.values() for svg in drawings)
    named = re.findall(r'<(\w+) [^>]*?\bid="([^"]*)"', text)
    assert {element for element, _ in named} <= {"path", "clipPath"}  # whose ids are made of their content


def test_every_ablation_has_a_figure_or_nothing_to_show(papers_report: PapersReport) -> None:
    drawn = {name for name, drawings in papers_report.figures.items() if drawings}
    assert set(papers_report.figures) == {s.name for s in (METHODS_V2, *SWEEPS)} | {"curves_methods", "curves_scratch"}
    assert set(papers_report.figures) - drawn == set()


def test_learning_curves(sides: Sides) -> None:
    (methods,) = svgs(learning_curves(sides.study, scratch=False))
    (scratch,) = svgs(learning_curves(sides.study, scratch=True))
    for label in ("teacher-free", "vanilla KD", "miniLM KD", "homotopic KD"):
        assert f">{label}<" in methods and f">{label}<" not in scratch
    for label in ("180M @ 160B", "180M @ 20B", "compressed @ 20B"):
        assert f">{label}<" in scratch and f">{label}<" not in methods
    assert ">300M @ 160B<" not in scratch  # on the way of a longer run


@pytest.mark.parametrize("sweep", [METHODS_V2, WHERE_V2])
def test_the_same_every_time(sides: Sides, sweep: object) -> None:
    assert sweep_figure(sides, sweep) == sweep_figure(sides, sweep)  # type: ignore[arg-type]
