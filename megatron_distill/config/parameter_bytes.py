"""Bytes that a model's parameters take: on a rank that trains them, and in a checkpoint."""

from __future__ import annotations

from typing import NamedTuple

from .model import ModelShape
from .run import Layout


class ParameterBytes(NamedTuple):
    """Bytes of one parameter."""

    weight: int
    gradient: int
    optimizer: int
    """Shared by the data-parallel ranks."""

    @property
    def stored(self) -> int:
        """In a checkpoint."""
        return self.weight + self.optimizer

    def held(self, data: int) -> float:
        """On each of `data` data-parallel ranks."""
        return self.weight + self.gradient + self.optimizer / data


def element_bytes(precision: str) -> int:
    """Of a weight with that --precision; auto counts as bf16, which every GPU of the papers has."""
    return 4 if precision == "fp32" else 2


def parameter_bytes(element: int, optimizer: str) -> ParameterBytes:
    """Of a parameter that trains with weights of `element` bytes: gradients are summed in fp32, and the optimizer holds
    a master weight of bf16 ones and Lion's moment or AdamW's two, all in fp32."""
    master = 4 if element == 2 else 0
    return ParameterBytes(element, 4, master + (4 if optimizer == "lion" else 8))


def parameters_of_stage(shape: ModelShape, num_layers: int, layout: Layout) -> float:
    """Parameters of a rank of the first or last stage, each of which holds a table."""
    tables = shape.num_parameters(0)
    layers = shape.num_parameters(num_layers) - tables
    if layout.pipeline > 1:
        tables = shape.padded_vocab_size * shape.hidden_size
    return (layers / layout.pipeline + tables) / layout.tensor
