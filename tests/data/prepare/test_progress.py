"""The line that says how far it is."""

from __future__ import annotations

import errno
import io
import os

import pytest

from megatron_distill.data.prepare import progress
from megatron_distill.data.prepare.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_totals_count_earlier_parts_and_rates_do_not(clock: list[float]) -> None:
    line = ProgressLine(4, 4_000_000, Terminal())
    line.already(num_bytes=1_000_000, num_documents=10, num_tokens=1000)
    clock[0] += 2
    line.update(1, (500_000, 1_500_000, 5, 400))
    line.update(2, (500_000, 1_000_000, 5, 200))
    line.update(1, (1_000_000, 3_000_000, 10, 800))  # counts are since the part began
    said = line.line()
    assert said == "62.5% of 4 parts | 25 documents, 2,000 tokens | 2.0 MB/s | 500 tokens/s | 0:00:02 left"


def test_the_last_line(clock: list[float]) -> None:
    out = io.StringIO()
    line = ProgressLine(1, 1_000_000, out)
    clock[0] += 0.5
    line.update(0, (1_000_000, 3_000_000, 7, 900))
    line.finish()
    assert out.getvalue() == "7 documents, 900 tokens | 6.0 MB/s | 1,800 tokens/s | 0.5 s\n"


@pytest.mark.parametrize(("out", "lines"), [(Terminal(), 10), (io.StringIO(), 1)], ids=["terminal", "file"])
def test_a_terminal_is_told_often_and_a_file_seldom(clock: list[float], out: io.StringIO, lines: int) -> None:
    line = ProgressLine(1, 1_000_000, out)
    for i in range(10):
        clock[0] += 7
        line.update(0, (1000 * i, 1000 * i, i, i))
    assert out.getvalue().count("parts |") == lines


def test_nothing_read_is_no_division(clock: list[float]) -> None:
    assert ProgressLine(1, 0, io.StringIO()).line().endswith("| ")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_an_output_that_takes_no_more_does_not_stop_the_work(number: int) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    line = ProgressLine(1, 1, Full())
    line.say("a sentence")
    line.update(0, (1, 1, 1, 1))
    line.finish()
