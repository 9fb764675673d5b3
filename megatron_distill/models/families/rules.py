"""How one tensor of ours is written in a Hugging Face folder: pure functions on whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One tensor of ours, and the one or several of Hugging Face's that it is made of."""

    ours: str
    shape: Shape
    """Of our whole tensor."""
    theirs: Mapping[str, Shape]
    """Names and shapes in the folder, in the order in which `join` takes them."""
    join: Callable[..., Tensor]
    """Theirs to ours."""
    cut: Callable[[Tensor], tuple[Tensor, ...]]
    """Ours to theirs: undoes `join` to the last bit."""


def same(ours: str, theirs: str, *shape: int) -> Rule:
    """A tensor that both write alike."""
    return Rule(ours, shape, {theirs: shape}, lambda x: x, lambda x: (x,))


def with_bias(ours: str, theirs: str, rows: int, *columns: int) -> list[Rule]:
    """Weight [rows, *columns] and bias [rows] of a linear layer or, without `columns`, of a norm."""
    return [
        same(f"{ours}.weight", f"{theirs}.weight", rows, *columns),
        same(f"{ours}.bias", f"{theirs}.bias", rows),
    ]


def transposed(ours: str, theirs: str, rows: int, columns: int) -> Rule:
    """Our [rows, columns] for GPT-2's [columns, rows]: its `Conv1D` keeps matrices the other way round."""
    return Rule(ours, (rows, columns), {theirs: (columns, rows)}, lambda x: x.t(), lambda x: (x.t(),))


def padded(ours: str, theirs: str, padded_rows: int, rows: int, columns: int) -> Rule:
    """A table of the vocabulary: ours has rows of zeros at its end."""

    def join(x: Tensor) -> Tensor:
        return torch.cat((x, x.new_zeros(padded_rows - rows, columns))) if padded_rows > rows else x

    return Rule(ours, (padded_rows, columns), {theirs: (rows, columns)}, join, lambda x: (x[:rows],))


def stacked(ours: str, theirs: tuple[str, ...], parts: int, sizes: tuple[int, ...], *rest: int) -> Rule:
    """Several matrices in one of ours, grouped: `parts` times [sizes[0] rows of the first | sizes[1] of the second..].

    Theirs are [parts * size, *rest]; `rest` is empty for biases.
    """

    def join(*tensors: Tensor) -> Tensor:
        cut_up = [x.reshape(parts, size, *rest) for x, size in zip(tensors, sizes, strict=True)]
        return torch.cat(cut_up, dim=1).reshape(-1, *rest)

    def cut(x: Tensor) -> tuple[Tensor, ...]:
        pieces = x.reshape(parts, sum(sizes), *rest).split(list(sizes), dim=1)
        return tuple(piece.reshape(-1, *rest) for piece in pieces)

    shapes = {name: (parts * size, *rest) for name, size in zip(theirs, sizes, strict=True)}
    return Rule(ours, (parts * sum(sizes), *rest), shapes, join, cut)


def shuffled(ours: str, theirs: str, parts: int, sizes: tuple[int, ...], *rest: int, transpose: bool = False) -> Rule:
    """As `stacked`, where theirs is one tensor already: the whole first matrix, the whole second, and so on."""
    inner = stacked(ours, tuple(map(str, range(len(sizes)))), parts, sizes, *rest)
    lengths = [parts * size for size in sizes]

    def join(x: Tensor) -> Tensor:
        return inner.join(*(x.t() if transpose else x).split(lengths))

    def cut(x: Tensor) -> tuple[Tensor, ...]:
        whole = torch.cat(inner.cut(x))
        return (whole.t() if transpose else whole,)

    shape = (*rest, sum(lengths)) if transpose else (sum(lengths), *rest)
    return Rule(ours, inner.shape, {theirs: shape}, join, cut)
