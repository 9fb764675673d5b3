"""Where text was left out, kept by piece and named by file: counting the lines before a piece means reading them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .pieces import count_lines, line_start

KEPT_PLACES = 10
"""Bad lines that are named."""


@dataclass(frozen=True)
class Place:
    """A bad line."""

    path: str
    begin: int
    """Byte at which its piece begins."""
    line: int
    """Number of the line, from 1 at the beginning of the piece."""
    why: str
    is_after: bool = False
    """What follows the line is bad."""


def name_places(places: Iterable[Place]) -> list[str]:
    """Each place with its line in the file; reads a file once, up to the last of its places."""
    return [
        f"{place.path}, {'after ' if place.is_after else ''}line {lines + place.line}: {place.why}"
        for place, lines in _with_lines_before(list(places)[:KEPT_PLACES])
    ]


def _with_lines_before(places: list[Place]) -> Iterator[tuple[Place, int]]:
    """Places, which are in the order of their files, with the number of lines before their piece."""
    path, counted_to, lines = "", 0, 0
    for place in places:
        if place.path != path:
            path, counted_to, lines = place.path, 0, 0
        if place.begin > counted_to:
            with Path(path).open("rb") as file:
                begin = line_start(file, place.begin)
                lines, counted_to = lines + count_lines(file, counted_to, begin), begin
        yield place, lines
