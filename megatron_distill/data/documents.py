"""What the end of a document inside a sample does to positions, loss and attention, on any device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from megatron_distill.batch import Batch


@dataclass(frozen=True)
class DocumentRules:
    """The rules of megatron-core's `--reset-position-ids` and `--eod-mask-loss`; by default documents do nothing."""

    eod: int = -1
    """The token that ends a document."""
    reset_position_ids: bool = False
    """Positions count from 0 again after it."""
    eod_mask_loss: bool = False
    """What is predicted from it, the first token of another document, does not count."""


def apply_rules(batch: Batch, rules: DocumentRules) -> Batch:
    """`batch` under `rules`; csrc/batch.cpp does the same on the CPU while it assembles."""
    if rules.eod_mask_loss:
        batch = replace(batch, loss_mask=batch.loss_mask.masked_fill(batch.tokens == rules.eod, 0.0))
    if rules.reset_position_ids:
        columns = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        starts = torch.where(_starts(batch.tokens, rules.eod), columns, 0).cummax(dim=1).values
        batch = replace(batch, position_ids=columns - starts)
    return batch


def attention_boundaries(tokens: Tensor, eod: int) -> Tensor:
    """Where the documents of `tokens` [micro-batch, seq] start when its rows are laid end to end, and the end of all.

    int32 [documents + 1], the `cu_seqlens` of variable-length attention kernels: between two neighbours lies what may
    attend to each other. A row starts a document of its own, whatever is before it.
    """
    starts = _starts(tokens, eod).flatten().nonzero().flatten()
    end = torch.tensor([tokens.numel()], device=tokens.device)
    return torch.cat((starts, end)).to(torch.int32)


def _starts(tokens: Tensor, eod: int) -> Tensor:
    starts = torch.ones_like(tokens, dtype=torch.bool)
    starts[:, 1:] = tokens[:, :-1] == eod
    return starts
