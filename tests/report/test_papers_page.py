"""The page, the Markdown and the CSV of one study."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest

from megatron_distill.report.markdown import write_markdown
from megatron_distill.report.papers import SECTIONS, PapersReport, build_report
from megatron_distill.report.papers_csv import COLUMNS, write_csv
from megatron_distill.report.papers_page import write_papers_page
from megatron_distill.report.records import find_runs
from tests.report.test_page import Reader
from tests.support.records import write_experiment


@pytest.fixture(scope="module")
def page(papers_report: PapersReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_papers_page(path, papers_report)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def markdown_file(papers_report: PapersReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("markdown") / "report.md"
    (path.parent / "figures").mkdir()
    (path.parent / "figures" / "lambda-9.svg").write_text("from another day")
    write_markdown(path, papers_report)
    return path


@pytest.fixture(scope="module")
def markdown(markdown_file: Path) -> list[str]:
    return markdown_file.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def lines(papers_report: PapersReport, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    path = tmp_path_factory.mktemp("csv") / "report.csv"
    write_csv(path, papers_report.tables)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_is_loaded_from_anywhere(page: str, seen: Reader) -> None:
    assert seen.loads == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(seen.tags)
    assert "@import" not in page and "url(" not in page.replace("url(#", "")


def test_every_tag_is_closed(seen: Reader) -> None:
    assert seen.open == []


def test_links_lead_somewhere(page: str) -> None:
    for anchor in re.findall(r"<a href='#([^']*)'", page):
        assert page.count(f"<section id={anchor}>") == 1


def test_everything_is_on_the_page(papers_report: PapersReport, page: str, seen: Reader) -> None:
    shown = [part for _, _, parts in SECTIONS for part in parts]
    assert set(shown) == {table.name for table in papers_report.tables} | set(papers_report.figures)
    for table in papers_report.tables:
        assert table.title in seen.text and table.caption in seen.text
    for finding in papers_report.findings:
        assert finding.claim in seen.text
    assert seen.tags.count("svg") == sum(map(len, papers_report.figures.values()))


def test_a_cell(page: str) -> None:
    assert ">30.15</span><span class=std>± 0.07 (2)</span><span class=pub>23.0 <em class=none>+7.15</em></span>" in page
    assert ">1.508</span><span class=std>± 0.004 (2)</span><span class=pub>1.420 <em class=bad>+0.088</em>" in page
    assert "<span class=missing>not run</span><span class=pub>17.3</span>" in page


def test_a_group_without_any_number_is_one_line(seen: Reader, page: str) -> None:
    assert "1.1B-40B not run, and no number is published" in seen.text
    assert page.count("<tr class=group>") > 20


def test_stand_ins_are_said_first(seen: Reader) -> None:
    text = (
        "These are small runs that stand for big ones. What is called 300M here has 1,000,000 parameters and not "
        "303,515,648; pretrained on 320B tokens means 50,000 tokens."
    )
    assert text in seen.text and seen.text.index(text) < seen.text.index("What the papers say")


def test_how_far_seeds_lie_apart_is_said(seen: Reader, markdown: list[str], tmp_path: Path) -> None:
    said = "Seeds of one setting typically spread by 0.22 % of their perplexity."
    assert said in seen.text and said in "\n".join(markdown)
    write_experiment(tmp_path / "base", perplexity=16.0, label=["model=300M", "checkpoint=160B"])
    assert "any difference counts" in build_report(find_runs([tmp_path])[0]).spread


def test_folders_are_text(page: str, seen: Reader) -> None:
    assert "unlabelled <b>" not in page and html.escape("unlabelled <b>") in page
    assert seen.text.count("let it come to its end first") == 1


def test_both_themes_have_the_same_colours(page: str) -> None:
    light, dark = re.findall(r":root \{ (?:color-scheme: light dark; )?((?:--[\w-]+: #\w+; ?)+)\}", page)
    names = [re.findall(r"--([\w-]+):", theme) for theme in (light, dark)]
    assert names[0] == names[1] and len(names[0]) > 10
    assert set(re.findall(r"var\(--([\w-]+)", page)) - set(names[0]) == {"width"}


def test_markdown_tables_are_even(markdown: list[str]) -> None:
    grids = [line for line in markdown if line.startswith("|")]
    assert len(grids) > 50
    columns = 0
    for before, line in zip(["", *markdown], markdown, strict=False):
        if line.startswith("|"):
            count = line.replace("\\|", "").count("|")
            columns = columns if before.startswith("|") else count
            assert count == columns, line


def test_markdown_says_what_the_page_says(markdown: list[str]) -> None:
    text = "\n".join(markdown)
    assert "| 300M-160B | teacher-free | 30.15 ± 0.07 (2) / 23.0 (+7.15) | 1.508 ± 0.004 (2) / 1.420 (+0.088)" in text
    assert "not run / plotted only in the paper" in text
    assert "* **disagrees**: Vanilla distillation beats miniLM" in text
    assert "## Left out" in text and "\u00ad" not in text


def test_markdown_names_what_has_no_number_of_ours(papers_report: PapersReport, markdown: list[str]) -> None:
    rows = [line for line in markdown if line.startswith("| 1.1B")]
    assert rows == []
    for table in papers_report.tables:
        start = next(i for i, line in enumerate(markdown) if line.startswith(f"### {table.title} ("))
        text = "\n".join(markdown[start : start + 60]).split("\n## ")[0].split("\n### ")[0]
        for row in table.rows:
            assert row.label[0] in text


def test_markdown_has_the_figures(papers_report: PapersReport, markdown_file: Path, markdown: list[str]) -> None:
    named = re.findall(r"!\[[^]]*\]\(([^)]*)\)", "\n".join(markdown))
    assert len(named) == sum(map(len, papers_report.figures.values())) > 10
    assert {markdown_file.parent / name for name in named} == set((markdown_file.parent / "figures").iterdir())


def test_csv_has_a_line_a_cell(papers_report: PapersReport, lines: list[dict[str, str]]) -> None:
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == sum(len(table.rows) * len(table.columns) for table in papers_report.tables)
    keys = [(line["table"], line["row"], line["column"]) for line in lines]
    assert len(set(keys)) == len(keys)


def test_csv_has_whole_numbers(lines: list[dict[str, str]], study_folder: Path) -> None:
    wanted = ("main_v2", "300M-160B, teacher-free", "perplexity")
    (line,) = [line for line in lines if (line["table"], line["row"], line["column"]) == wanted]
    assert float(line["ours"]) == pytest.approx(30.15) and float(line["ours_std"]) == pytest.approx(0.1 / 2**0.5)
    assert (line["seeds"], line["published"], line["missing"]) == ("2", "23.0", "")
    assert float(line["difference"]) == pytest.approx(7.15)
    assert line["runs"].split(";") == [str(study_folder / f"seed{seed}" / "none") for seed in (1, 2)]


def test_csv_says_what_is_missing(lines: list[dict[str, str]]) -> None:
    wanted = ("lambda", "1.1B-160B, perplexity", "λ = 2")
    (line,) = [line for line in lines if (line["table"], line["row"], line["column"]) == wanted]
    assert (line["ours"], line["published"], line["difference"], line["seeds"]) == ("", "", "", "0")
    assert line["missing"] == "ours: not run; published: plotted only in the paper"
