"""Removal schedules in the papers' steps."""

from __future__ import annotations

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.pruning.when import RemovalSchedule, parse_tokens, tokens_to_iters


@pytest.mark.parametrize(("gap", "last"), [(0, 500), (50, 1050), (250, 3250), (500, 6000)])
def test_the_last_of_twelve_leaves_at_the_papers_step(gap: int, last: int) -> None:
    removals = RemovalSchedule(removed=tuple(range(1, 13)), seed_iters=500, gap_iters=gap).removal_iterations()
    assert removals[0][0] == 500 and removals[-1][0] == last
    assert sorted(i for _, layers in removals for i in layers) == list(range(1, 13))
    assert len(removals) == (12 if gap else 1)


def test_layers_leave_in_ascending_order() -> None:
    removals = RemovalSchedule(removed=(7, 1, 4), seed_iters=2, gap_iters=3).removal_iterations()
    assert removals == ((2, (1,)), (5, (4,)), (8, (7,)))


@pytest.mark.parametrize(
    ("text", "steps"), [("20B", 10_000), ("1B", 500), ("100M", 50), ("500M", 250), ("160B", 80_000), ("800M", 400)]
)
def test_nominal_steps_of_two_million(text: str, steps: int) -> None:
    assert tokens_to_iters(parse_tokens(text), 1024 * 2048, nominal=True) == steps


def test_real_tokens_round_up() -> None:
    assert tokens_to_iters(parse_tokens("1.5K"), 1000, nominal=False) == 2
    assert tokens_to_iters(0, 1000, nominal=False) == 0


@pytest.mark.parametrize("text", ["", "x", "-1", "1Q", "nan", "inf"])
def test_what_is_no_number_of_tokens_is_said(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_tokens(text)
