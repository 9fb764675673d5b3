"""What the preparation of a corpus has done so far, in one line."""

from __future__ import annotations

import time
from collections import Counter
from typing import TextIO

LIVE_S, LOGGED_S = 0.2, 60.0
"""Seconds between two lines on a terminal, where each replaces the last, and in a file."""


class ProgressLine:
    """Documents, tokens, rates and the time that is left; rates are of this run, totals of all."""

    def __init__(self, num_parts: int, num_bytes: int, file: TextIO) -> None:
        self._num_parts, self._num_bytes, self._file = num_parts, num_bytes, file
        self._live, self._is_heard = file.isatty(), True
        self._begun = self._said = time.monotonic()
        self._parts: dict[int, tuple[int, int, int, int]] = {}
        self._found: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to count seconds."""
        self._begun = self._said = time.monotonic()

    def already(self, num_bytes: int, num_documents: int, num_tokens: int) -> None:
        """Count a part that an earlier run made."""
        self._found.update(parts=1, bytes=num_bytes, documents=num_documents, tokens=num_tokens)

    def update(self, part: int, counts: tuple[int, int, int, int]) -> None:
        """Take the counts of a part, see `part_maker.Report`, and say something if it is time."""
        self._parts[part] = counts
        now = time.monotonic()
        if now - self._said >= (LIVE_S if self._live else LOGGED_S):
            self._said = now
            self._print(("\r\033[K" if self._live else "") + self.line() + ("" if self._live else "\n"))

    def line(self, finished: bool = False) -> str:
        """The line."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        read, text, documents, tokens = (
            sum(counts) for counts in zip((0, 0, 0, 0), *self._parts.values(), strict=True)
        )
        total_documents, total_tokens = documents + self._found["documents"], tokens + self._found["tokens"]
        said = (
            f"{total_documents:,} documents, {total_tokens:,} tokens | {text / 1e6 / seconds:.1f} MB/s | "
            f"{tokens / seconds:,.0f} tokens/s"
        )
        if finished:
            return f"{said} | {seconds:.1f} s"
        left = self._num_bytes - self._found["bytes"] - read
        eta = f"{_hours(left * seconds / read)} left" if read else ""
        share = 1 - left / max(self._num_bytes, 1)
        return f"{share:.1%} of {self._num_parts} parts | {said} | {eta}"

    def finish(self) -> None:
        """The last line."""
        self._print(("\r\033[K" if self._live else "") + self.line(finished=True) + "\n")

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self._print(f"{sentence}\n")

    def _print(self, text: str) -> None:
        """Write, as long as somebody reads: a closed pipe or a full disk behind the output is no reason to stop."""
        if self._is_heard:
            try:
                self._file.write(text)
                self._file.flush()
            except OSError:
                self._is_heard = False


def _hours(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
