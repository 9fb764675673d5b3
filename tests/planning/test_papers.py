"""Table 4 of arXiv:2305.14864, both versions."""

from __future__ import annotations

import pytest

from megatron_distill.planning.papers import PUBLISHED

EXACT = {
    ("v1", "palm-300m-paper"): (21.3017, 33.4424),
    ("v1", "palm-1.1b-paper"): (72.8025, 117.2164),
    ("v2", "palm-300m-paper"): (21.2197, 33.3135),
    ("v2", "palm-1.1b-paper"): (72.5220, 116.7648),
}


@pytest.mark.parametrize("figure", PUBLISHED, ids=lambda f: f"{f.version}-{f.model}-{f.printed}")
def test_to_the_last_printed_digit(figure) -> None:  # type: ignore[no-untyped-def]
    assert figure.counted == figure.printed
    assert figure.flops / 1e18 == pytest.approx(EXACT[figure.version, figure.model][figure.distilled], abs=5e-5)


def test_all_eight_of_them() -> None:
    printed = ["21.3", "33.44", "72.8", "117.2", "21.22", "33.31", "72.52", "116.76"]
    assert [figure.printed for figure in PUBLISHED] == printed
