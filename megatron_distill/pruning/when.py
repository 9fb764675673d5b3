"""When layers leave: all at once after the seed phase, or one by one (arXiv:2305.14864, "when")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from megatron_distill.config.error import ConfigError

_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class RemovalSchedule:
    """Layers `removed` (original indices) leave in ascending order, the first before step `seed_iters` (0-based), the
    others `gap_iters` steps apart; a gap of 0 removes all at once."""

    removed: tuple[int, ...]
    seed_iters: int
    gap_iters: int

    def removal_iterations(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """(step, layers that leave before it), in order."""
        return self._removals

    @cached_property
    def _removals(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        order = tuple(sorted(self.removed))
        if self.gap_iters == 0:
            return ((self.seed_iters, order),)
        return tuple((self.seed_iters + i * self.gap_iters, (layer,)) for i, layer in enumerate(order))


def parse_tokens(text: str) -> int:
    """A number of tokens: `500`, `100M`, `1.5B`, with K, M, B, T for powers of a thousand.

    Raises:
        ConfigError: not such a number.
    """
    number, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    try:
        tokens = float(number) * unit
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a number of tokens; write 500, 100M, 1.5B or 2T") from error
    if not 0 <= tokens < 1e18:
        raise ConfigError(f"{text!r} must be at least 0 and less than 1e18 tokens")
    return round(tokens)


def tokens_to_iters(tokens: int, tokens_per_iter: int, *, nominal: bool) -> int:
    """Optimizer steps that see `tokens`, rounded up.

    With `nominal` a batch counts as the papers count it: 2,097,152 tokens are "2M", so 20B are 10,000 steps and 1B
    are 500. In general the batch is rounded to one significant digit.
    """
    if nominal:
        power = 10 ** (len(str(tokens_per_iter)) - 1)
        tokens_per_iter = (2 * tokens_per_iter + power) // (2 * power) * power
    return -(-tokens // tokens_per_iter)
