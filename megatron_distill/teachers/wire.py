"""A message over the bridge: the parts of tensors that one rank sends another for a micro-batch, and what proves it.

bytes    0: 40   micro-batch, first sample, samples, checksum of the tokens, checksum of the rest; int64 each
        64: ...  the slices, one after the other, each from a multiple of 64 bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.tap import Tap

from .routes import Slice

_ALIGN = 64
_HEADER = 5


@dataclass(frozen=True)
class Stamp:
    """Which micro-batch a message is about."""

    number: int
    """Micro-batch of a replica, counted from the beginning of the run; -1: tables, once."""
    first_sample: int
    """Position in the data of its first sample; the others follow."""
    num_samples: int
    tokens: Tensor | None
    """[micro-batch, seq]; None where this rank has not read them."""

    @property
    def numbers(self) -> tuple[int, int, int]:
        """What a header begins with."""
        return self.number, self.first_sample, self.num_samples


def message_bytes(slices: Sequence[Slice]) -> int:
    """Size of a message."""
    return _ALIGN + sum(_aligned(part.nbytes) for part in slices)


def pack(slices: Sequence[Slice], held: Mapping[Tap, Tensor], tensor_rank: int, parts: int, stamp: Stamp) -> Tensor:
    """The message, uint8 on the device of the tensors.

    Args:
        slices: what it is to hold.
        held: tapped tensors: this rank's part of each, or all of it.
        tensor_rank, parts: which of how many parts this rank has where it has not all.
        stamp: which micro-batch it is about.
    """
    device = next(iter(held.values())).device
    message = torch.empty(message_bytes(slices), dtype=torch.uint8, device=device)
    for item, out in zip(slices, _views(message, slices), strict=True):
        tensor, dim = held[item.tap], item.form.dim
        has_all = tensor.shape[dim] == item.form.size[dim]
        first = 0 if has_all else item.form.size[dim] * tensor_rank // parts
        out.copy_(tensor.narrow(dim, item.start - first, item.stop - item.start))
    tokens = torch.zeros((), dtype=torch.int64, device=device) if stamp.tokens is None else token_checksum(stamp.tokens)
    values = torch.tensor(stamp.numbers, dtype=torch.int64, device=device)
    header = message[: 8 * _HEADER].view(torch.int64)
    header.copy_(torch.cat((values, tokens.view(1), _checksum(message).view(1))))
    return message


def unpack(message: Tensor, slices: Sequence[Slice], stamp: Stamp, peer: str) -> dict[Tap, tuple[Slice, Tensor]]:
    """The slices of a message, as views of it.

    Raises:
        BridgeError: it is about another micro-batch, its sender read other tokens, or it was damaged. On a GPU the
            assertion of the device says so, later, for to ask at once would stop it.
    """
    header = message[: 8 * _HEADER].view(torch.int64)
    values = torch.tensor(stamp.numbers, dtype=torch.int64, device=header.device)
    tokens = header[3] if stamp.tokens is None else token_checksum(stamp.tokens)
    expected = torch.cat((values, tokens.view(1), _checksum(message).view(1)))
    if message.is_cuda:
        torch._assert_async((header == expected).all())
    elif not torch.equal(header, expected):
        raise BridgeError(_difference(header.tolist(), expected.tolist(), peer))
    views = _views(message, slices)
    return {item.tap: (item, view) for item, view in zip(slices, views, strict=True)}


def token_checksum(tokens: Tensor) -> Tensor:
    """A number that depends on every token and its place, int64 without dimensions; overflow wraps around."""
    flat = tokens.flatten().to(torch.int64)
    places = torch.arange(1, len(flat) + 1, device=flat.device)
    return ((flat + 1) * (places * 0x9E3779B1 + 1)).sum()


def _checksum(message: Tensor) -> Tensor:
    """Of all that follows the header. Order is not its business: the layout of a message is fixed."""
    return message[_ALIGN:].view(torch.int32).sum(dtype=torch.int64)


def _difference(found: list[int], expected: list[int], peer: str) -> str:
    if found[:3] != expected[:3]:
        got, wanted = (f"samples {f} to {f + n - 1} (micro-batch {m})" for m, f, n in (found[:3], expected[:3]))
        return f"{peer} sent {got} where {wanted} were expected; the roles have lost step"
    if found[3] != expected[3]:
        return (
            f"{peer} read other tokens than the student in samples {found[1]} to {found[1] + found[2] - 1}; see that "
            "both find the same files under --data-path"
        )
    return f"a message of {peer} about samples {found[1]} to {found[1] + found[2] - 1} was damaged on its way"


def _views(message: Tensor, slices: Sequence[Slice]) -> list[Tensor]:
    views, offset = [], _ALIGN
    for item in slices:
        views.append(message[offset : offset + item.nbytes].view(item.form.dtype).view(item.size))
        offset += _aligned(item.nbytes)
    return views


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
