"""Index sets of every layout."""

from __future__ import annotations

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.pruning.where import LAYOUTS, layers_to_remove

EIGHT = {
    "max-gap": (1, 4, 7, 10, 13, 16, 19, 22),
    "input": tuple(range(1, 9)),
    "output": tuple(range(15, 23)),
    "both": (1, 2, 3, 4, 19, 20, 21, 22),
    "middle": tuple(range(8, 16)),
    "alt-input": (1, 3, 5, 7, 9, 11, 13, 15),
    "alt-output": (8, 10, 12, 14, 16, 18, 20, 22),
    "alt-both": (1, 3, 5, 7, 16, 18, 20, 22),
    "alt-middle": (5, 7, 9, 11, 12, 14, 16, 18),
}
TWELVE = {
    "max-gap": (1, 3, 5, 7, 9, 11, 12, 14, 16, 18, 20, 22),
    "input": tuple(range(1, 13)),
    "output": tuple(range(11, 23)),
    "both": (*range(1, 7), *range(17, 23)),
    "middle": tuple(range(6, 18)),
}


@pytest.mark.parametrize("layout", EIGHT)
def test_eight_of_24(layout: str) -> None:
    assert layers_to_remove(layout, 24, 8) == EIGHT[layout]


@pytest.mark.parametrize("layout", TWELVE)
def test_twelve_of_24(layout: str) -> None:
    assert layers_to_remove(layout, 24, 12) == TWELVE[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layers", [4, 7, 12, 32])
def test_first_and_last_stay_whatever_fits(layout: str, layers: int) -> None:
    for removed in range(1, layers - 1):
        try:
            indices = layers_to_remove(layout, layers, removed)
        except ConfigError:
            assert layout.startswith("alt-"), (layout, layers, removed)
            continue
        assert len(set(indices)) == removed and 0 < indices[0] <= indices[-1] < layers - 1


def test_lists_and_ranges() -> None:
    assert layers_to_remove("1,3,5-8", 24, 0) == (1, 3, 5, 6, 7, 8)
    assert layers_to_remove("5-6,2", 24, 3) == (2, 5, 6)


@pytest.mark.parametrize(
    ("layout", "removed", "says"),
    [
        ("max-gab", 8, "did you mean max-gap"),
        ("input", 23, "between 1 and 22"),
        ("alt-input", 12, "remove fewer"),
        ("0,1", 0, "between 1 and 22"),
        ("22,23", 0, "between 1 and 22"),
        ("1,1", 0, "once"),
        ("1,x", 0, "'x'"),
        ("1,2", 3, "names 2 layers"),
    ],
)
def test_what_cannot_be_is_said(layout: str, removed: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        layers_to_remove(layout, 24, removed)


@pytest.mark.parametrize("text", ["1-", "²", "1-²", "-2", "1--2", "1,", "1-99999999999999", "2-1", "1-999999999", "٣"])
def test_what_is_no_list_of_layers(text: str) -> None:
    with pytest.raises(ConfigError, match="--pruning-layout"):
        layers_to_remove(text, 24, 0)
