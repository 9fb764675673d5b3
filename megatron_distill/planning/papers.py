"""The FLOPs that arXiv:2305.14864 printed in its two versions, beside what `config/cost.py` counts."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_distill.config.cost import paper_flops
from megatron_distill.config.model import ModelConfig

TOKENS = {"v1": 20_000_000_000, "v2": 9_500 * 2_097_152}
"""Tokens that the tables count: v1 all of the run, v2 the 9,500 steps after the seed phase, as the figures tell."""


@dataclass(frozen=True)
class PublishedFigure:
    """An entry of Table 4."""

    version: str
    model: str
    distilled: bool
    printed: str
    """In units of 1e18, as printed."""

    @property
    def flops(self) -> float:
        """What we count: half of 24 layers trained, and all of them as teacher where it distils."""
        shape = ModelConfig(model=self.model).shape()
        teacher = shape.num_parameters() if self.distilled else 0
        return paper_flops(shape.num_parameters(shape.num_layers // 2), TOKENS[self.version], teacher)

    @property
    def counted(self) -> str:
        """`flops` with as many digits as were printed."""
        return f"{self.flops / 1e18:.{len(self.printed.partition('.')[2])}f}"


PUBLISHED = (
    PublishedFigure("v1", "palm-300m-paper", False, "21.3"),
    PublishedFigure("v1", "palm-300m-paper", True, "33.44"),
    PublishedFigure("v1", "palm-1.1b-paper", False, "72.8"),
    PublishedFigure("v1", "palm-1.1b-paper", True, "117.2"),
    PublishedFigure("v2", "palm-300m-paper", False, "21.22"),
    PublishedFigure("v2", "palm-300m-paper", True, "33.31"),
    PublishedFigure("v2", "palm-1.1b-paper", False, "72.52"),
    PublishedFigure("v2", "palm-1.1b-paper", True, "116.76"),
)
