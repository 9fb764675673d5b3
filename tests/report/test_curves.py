"""The picture."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from megatron_distill.report.curves import _figure, curves_svg, draw_curves
from megatron_distill.report.drawing import short
from megatron_distill.report.records import RunRecord, read_run
from tests.support.records import NUMBERS, write_run


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, RunRecord]:
    return {name: read_run(write_run(tmp_path / name, name)) for name in NUMBERS}


def test_a_real_png_of_the_expected_size(runs: dict[str, RunRecord], tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves(path, runs, mark={"perplexity": 60.0})
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"
    assert struct.unpack(">II", data[16:24]) == (8 * 160, round(4.6 * 160))


def test_the_curves_are_the_runs_losses(runs: dict[str, RunRecord]) -> None:
    (axes,) = _figure(runs, {"perplexity": 60.0}).axes
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    expected = [run.series(kind) for run in runs.values() for kind in ("train", "valid")]
    assert lines == [*expected, ([0], [math.log(60.0)])]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "base",
        "compressed",
        "same size, from scratch",
    ]


def test_the_svg_is_whole_and_the_same_every_time(runs: dict[str, RunRecord]) -> None:
    text = curves_svg(runs)
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "just truncated" not in text
    assert "just truncated" in curves_svg(runs, mark={"perplexity": 60.0})
    assert curves_svg(runs) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (1000, "1K"), (1_500_000, "1.5M"), (20e9, "20B")])
def test_token_counts_are_short(value: float, text: str) -> None:
    assert short(value) == text
