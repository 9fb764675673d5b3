"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), the rotate-half pairing: dim i with i + head_dim/2."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from torch import Tensor


class RotaryTable(RotaryEmbedding):
    """Cosines and sines for all positions, made once for each length instead of in every layer of every step."""

    def __init__(self, head_dim: int, base: float, **options: Any) -> None:
        super().__init__(kv_channels=head_dim, rotary_percent=1.0, rotary_base=base, **options)
        self._tables: dict[tuple[int, torch.device], Tensor] = {}

    def forward(self, max_seq_len: int, offset: int = 0, packed_seq: bool = False, cp_group: Any = None) -> Tensor:
        """fp32 [2, seq, 1, 1, head_dim / 2]: cosines, sines."""
        key = (max_seq_len, self.inv_freq.device)
        if key not in self._tables:
            positions = torch.arange(max_seq_len, dtype=torch.float32, device=self.inv_freq.device)
            angles = torch.outer(positions, self.inv_freq.float())[:, None, None, :]
            self._tables[key] = torch.stack((angles.cos(), angles.sin()))
        return self._tables[key]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """`x` [seq, batch, heads, head_dim] rotated by its position."""
    return _Rotate.apply(x, table[0], table[1])


class _Rotate(torch.autograd.Function):
    """The rotation in fp32, its inverse as gradient; keeps nothing of `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # One conversion each way, and no temporary that has to be written and read again.
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    left, right = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return turned.to(x.dtype)
