"""Which corpora a run reads, and how much of each: `--data-path 0.7 prose 0.3 code`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_distill.config.error import ConfigError

from .indexed import IndexedCorpus

MOST_WEIGHT = 1e9
"""Weights count by their ratios; sums of larger ones would lose the small."""


@dataclass(frozen=True)
class Blend:
    """Corpora, and what share of the samples comes from each."""

    corpora: tuple[IndexedCorpus, ...]
    weights: tuple[float, ...] | None
    """One above 0 for each corpus; None: in proportion to their sizes."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Of the corpora."""
        return tuple(corpus.prefix for corpus in self.corpora)


def open_blend(flag: str, values: Sequence[str]) -> Blend:
    """The corpora that the values of `flag` name: prefixes, or a weight before each prefix.

    Raises:
        ConfigError: some weights but not all, weights that are not above 0, or a corpus that cannot be opened.
    """
    numbers = [_number(value) for value in values]
    if len(values) == 1 or not any(number is not None for number in numbers):
        return Blend(tuple(map(IndexedCorpus, values)), None)
    weights, prefixes = numbers[::2], values[1::2]
    if len(values) % 2 or None in weights or any(number is not None for number in numbers[1::2]):
        raise ConfigError(
            f"{flag} {' '.join(values)} must be prefixes alone, or a weight before each: 0.7 prose 0.3 code"
        )
    for weight, prefix in zip(weights, prefixes, strict=True):
        if weight is None or not 0 < weight <= MOST_WEIGHT:
            raise ConfigError(
                f"{flag} gives {prefix} the weight {weight}, which must be a number above 0 and at most {MOST_WEIGHT:g}"
            )
    return Blend(tuple(map(IndexedCorpus, prefixes)), tuple(weight for weight in weights if weight is not None))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
