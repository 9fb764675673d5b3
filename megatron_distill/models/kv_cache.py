"""Keys and values of tokens that the model has seen, so that the next ones cost one token each.

A row's tokens stand from column 0 on, whatever its length: prompts are padded on the right. A pad is written into the
columns that the row's next tokens will take, and no token looks beyond its own column, so nothing ever sees one. The
first pass therefore needs no mask, and a row's result does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class _Place:
    """Columns of the tokens of one pass, the same in every layer."""

    start: int
    """Of the first token, in every row; -1 where rows differ."""
    columns: Tensor
    """int64 [batch, tokens]"""
    end: int
    """Columns that any row has filled after this pass."""
    mask: Tensor | None
    """bool [batch, 1, tokens, end], what a token may see; None: all of it, or all that precedes it from column 0."""


class KeyValueCache:
    """Of the layers that this rank holds, for its heads: [layers, batch, key heads, capacity, head dim] twice."""

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        head_dim: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (layers, batch, heads, capacity, head_dim)
        # Zeros, because a kernel may multiply what the mask hides by 0, and memory may hold NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        """Columns that each row has filled."""
        self._longest = self._shortest = 0
        self._place: _Place | None = None

    def open(self, tokens: int) -> Tensor:
        """Make room for the next `tokens` of every row; their positions, int64 [batch, tokens]."""
        columns = self.lengths[:, None] + torch.arange(tokens, device=self.lengths.device)
        even = self._longest == self._shortest
        end = self._longest + tokens
        mask = None
        if self._longest and not (even and tokens == 1):
            mask = torch.arange(end, device=columns.device) <= columns[:, None, :, None]
        self._place = _Place(start=self._longest if even else -1, columns=columns, end=end, mask=mask)
        return columns

    def close(self, lengths: Tensor, longest: int, shortest: int) -> None:
        """After the last layer: how many columns of each row hold tokens, int64 [batch], and the extremes of these."""
        self.lengths, self._longest, self._shortest = lengths, longest, shortest

    def select(self, rows: Tensor, lengths: list[int]) -> KeyValueCache:
        """A cache of some rows, in any order and as often as they are named, with the columns that these fill.

        `lengths` are those of `rows`, known on the host.
        """
        chosen = object.__new__(KeyValueCache)
        chosen.keys, chosen.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        chosen.close(self.lengths.index_select(0, rows), max(lengths), min(lengths))
        chosen._place = None
        return chosen

    def layer(self, number: int) -> LayerCache:
        """The part of one layer, counted from the first on this rank."""
        return LayerCache(self, number)

    @property
    def place(self) -> _Place:
        """Of the pass that is open."""
        assert self._place is not None
        return self._place


class LayerCache:
    """What one layer's attention sees of a cache."""

    def __init__(self, cache: KeyValueCache, number: int) -> None:
        self.cache, self.number = cache, number

    def append(self, k: Tensor, v: Tensor) -> bool:
        """Keep keys and values [seq, batch, key heads, head dim]; True if they are the first ones."""
        place = self.cache.place
        for kept, new in ((self.cache.keys[self.number], k), (self.cache.values[self.number], v)):
            if place.start >= 0:
                kept[:, :, place.start : place.end] = new.permute(1, 2, 0, 3)
            else:
                rows = torch.arange(new.shape[1], device=new.device)[:, None]
                kept[rows, :, place.columns] = new.transpose(0, 1)
        return place.start == 0

    def attend(self, q: Tensor) -> Tensor:
        """Queries [seq, batch, heads, head dim] over all that is kept; the same shape."""
        place = self.cache.place
        k, v = (x[self.number][:, :, : place.end] for x in (self.cache.keys, self.cache.values))
        seq, batch, heads, width = q.shape
        groups = k.shape[1]
        # The queries of a group stand in a row before its one key head: no key is repeated.
        grouped = q.view(seq, batch, groups, -1, width).permute(1, 2, 3, 0, 4).reshape(batch, groups, -1, width)
        mask = place.mask
        if mask is not None and heads != groups and seq > 1:
            mask = mask.repeat(1, 1, heads // groups, 1)
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask)
        return out.view(batch, groups, -1, seq, width).permute(3, 0, 1, 2, 4).reshape(seq, batch, heads, width)
