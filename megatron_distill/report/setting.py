"""The cells of the papers' experiments (arXiv:2305.14864, v1 and v2): which model, pruned and trained in which way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from megatron_distill.config.distillation_cost import METHODS
from megatron_distill.config.error import ConfigError
from megatron_distill.pruning.where import LAYOUTS, layers_to_remove

DEPTH = 24
"""Layers of the models that the papers compress."""
HALF = {"300M": "180M", "1.1B": "610M"}
"""From a model to the one of half its layers."""
CHECKPOINTS = ("20B", "40B", "80B", "160B", "320B")
"""Tokens of pretraining, from few to many."""
GAPS = ("0", "100M", "500M", "1B")
"""Tokens between one removal and the next."""
METHOD_NAMES = {"none": "teacher-free", "vanilla": "vanilla KD", "minilm": "miniLM KD", "homotopic": "homotopic KD"}
assert METHOD_NAMES.keys() == METHODS.keys()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cell: a pretrained model (no layout), or one compressed from it on 20B tokens."""

    model: str
    """300M, 1.1B or a half of one (180M, 610M); of a compressed model the one that it came from."""
    checkpoint: str
    """Tokens of pretraining; of a compressed model those of the checkpoint that it came from."""
    layout: str | None = None
    removed: int = 0
    """Layers of 24."""
    gap: str = "0"
    method: str = "none"
    """A key of METHOD_NAMES."""
    weight: float = 1.0
    """Of the losses of distillation: lambda."""
    lm_weight: float = 1.0

    @property
    def origin(self) -> Setting:
        """The model before compression, to which perplexities and scores are compared; of a half-size model the whole
        one, at 160B tokens."""
        if self.layout is not None:
            return Setting(model=self.model, checkpoint=self.checkpoint)
        whole = {half: model for model, half in HALF.items()}
        return Setting(model=whole[self.model], checkpoint="160B") if self.model in whole else self

    @property
    def obstacle(self) -> str:
        """Why a layout of 24 layers cannot be run, or need not be; empty if nothing speaks against it."""
        if self.layout is None:
            return ""
        layers = _layers(self.layout, self.removed)
        if not layers:
            return f"does not fit {DEPTH} layers"
        first = next((name for name in LAYOUTS if _layers(name, self.removed) == layers), self.layout)
        return "" if first == self.layout else f"the same layers as {first}"


def _layers(layout: str, removed: int) -> tuple[int, ...]:
    """Indices that leave; none if so many cannot."""
    try:
        return layers_to_remove(layout, DEPTH, removed)
    except ConfigError:
        return ()


def base(model: str, checkpoint: str = "160B") -> Setting:
    """A pretrained model."""
    return Setting(model=model, checkpoint=checkpoint)


def compressed(model: str, checkpoint: str, layout: str, removed: int) -> Setting:
    """A base without some layers, all gone at once, trained without a teacher."""
    return Setting(model=model, checkpoint=checkpoint, layout=layout, removed=removed)


def main_v2(model: str, method: str = "none") -> Setting:
    """A row of v2, Table 3: half of the layers of the 160B checkpoint, by max-gap (300M) or input (1.1B)."""
    return replace(compressed(model, "160B", {"300M": "max-gap", "1.1B": "input"}[model], DEPTH // 2), method=method)


def main_v1(model: str, method: str = "none") -> Setting:
    """A row of v1, Table 3: the first half after layer 0, of 300M at 320B and 1.1B at 160B tokens."""
    return replace(compressed(model, {"300M": "320B", "1.1B": "160B"}[model], "input", DEPTH // 2), method=method)
