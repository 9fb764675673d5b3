"""The page opens offline and shows what it was given as text."""

from __future__ import annotations

import html
from html.parser import HTMLParser
from pathlib import Path

from megatron_distill.report.page import write_page
from megatron_distill.report.records import RunRecord, read_run
from megatron_distill.report.summary import summarise, table_rows
from tests.support.records import NUMBERS, write_run

LOADS = {"src", "href", "xlink:href", "data", "srcset", "poster", "action", "background"}
EMPTY = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Notes what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADS and not (value or "").startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path, *, verdict: str = "All is well.", title: str = "CPU") -> tuple[str, Reader]:
    """A page of the three runs, and what a browser sees of it."""
    runs: dict[str, RunRecord] = {n: read_run(write_run(folder / n, n, title=title)) for n in NUMBERS}
    entries = summarise(**runs)
    write_page(folder / "report.html", table_rows(entries), verdict, runs, mark=entries["truncated"])
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    return text, reader


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    text, reader = page(tmp_path)
    assert reader.loads == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert "@import" not in text and "url(" not in text.replace("url(#", "")


def test_every_tag_is_closed(tmp_path: Path) -> None:
    assert page(tmp_path)[1].open == []


def test_table_curves_and_provenance_are_there(tmp_path: Path) -> None:
    text, reader = page(tmp_path)
    assert reader.tags.count("svg") == 1
    assert reader.tags.count("tr") == 5 and reader.tags.count("details") == 3
    assert text.count("<tr class=ours><td>compressed</td>") == 1
    for part in (
        "All is well.",
        "just truncated",
        "60.00",
        "base: 50,000 tokens in 12 s",
        "commit unknown",
        "torch 2.6",
    ):
        assert part in reader.text
    assert '"seed": 1' in reader.text


def test_text_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & <b>"
    text, reader = page(tmp_path, verdict=evil, title=evil)
    assert "<script" not in text and "<b>" not in text
    assert text.count(html.escape(evil)) == reader.text.count(evil) == 5  # verdict, footer and three runs' details
