"""What a loss on logits can know of the teacher: final hidden states, logits, or the largest probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .collectives import rank_in, size_of, sum_over

_TOKENS_AT_ONCE = 256
NEVER = -1e4
"""A logit whose exponential is 0, and whose differences do not overflow."""


@dataclass(frozen=True)
class HiddenTeacher:
    """The teacher's final hidden states [tokens, teacher hidden] and its output matrix [vocab of this rank, teacher
    hidden]: 2 bytes x hidden a token from the teacher, whatever the vocabulary."""

    hidden: Tensor
    weight: Tensor

    def fill(self, out: Tensor, start: int) -> None:
        """Write the logits of tokens `start`.. to `out` [tokens of the chunk, vocab of this rank]."""
        project(self.hidden[start : start + len(out)], self.weight, out)

    @property
    def size(self) -> tuple[int, int]:
        """Tokens, and vocabulary of this rank."""
        return self.hidden.shape[0], self.weight.shape[0]


@dataclass(frozen=True)
class LogitTeacher:
    """The teacher's logits, [tokens, vocab of this rank]."""

    logits: Tensor

    def fill(self, out: Tensor, start: int) -> None:
        """Write the logits of tokens `start`.. to `out`."""
        out.copy_(self.logits[start : start + len(out)])

    @property
    def size(self) -> tuple[int, int]:
        """Tokens, and vocabulary of this rank."""
        return self.logits.shape[0], self.logits.shape[1]


@dataclass(frozen=True)
class TopKTeacher:
    """The teacher's k most likely tokens and the mass of all others, the same on every tensor-parallel rank.

    The others count as one outcome for both models, so no mass is lost and the divergence is a lower bound of the
    whole one, with equality where teacher and student agree about the proportions of the others.
    """

    log_probs: Tensor
    """[tokens, k], at the temperature of the loss."""
    indices: Tensor
    """[tokens, k], int64 numbers in the whole vocabulary, different from each other."""
    log_tail: Tensor
    """[tokens], log-probability of all others together. A logarithm, because a confident teacher's tail is too small
    to be what is missing from a sum to 1, and the reverse KL depends on it."""

    def log_outcomes(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Log-probabilities of the k + 1 outcomes of some tokens, [tokens, k + 1]."""
        tail = self.log_tail[start:stop].to(dtype).unsqueeze(1)
        return torch.cat((self.log_probs[start:stop].to(dtype), tail), dim=1)


DenseTeacher = HiddenTeacher | LogitTeacher
Teacher = DenseTeacher | TopKTeacher


def project(hidden: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write hidden @ weight.T to `out`, multiplied in the matrix' dtype: [tokens, hidden], [vocab, hidden]."""
    if out.dtype == weight.dtype:
        torch.mm(hidden.to(weight.dtype), weight.t(), out=out)
    else:
        out.copy_(torch.mm(hidden.to(weight.dtype), weight.t()))


def hide_rows(logits: Tensor, num_outcomes: int, group: dist.ProcessGroup | None) -> Tensor:
    """Take all probability from tokens of number `num_outcomes` and above, in place: rows that pad the vocabulary, and
    tokens that the other model does not have. Logits [..., vocab of this rank]."""
    width = logits.shape[-1]
    logits[..., max(num_outcomes - rank_in(group) * width, 0) :] = NEVER
    return logits


def largest(logits: Tensor, k: int, temperature: float, group: dist.ProcessGroup | None) -> TopKTeacher:
    """The k likeliest tokens of logits [tokens, vocab of this rank], at a temperature. Collective over `group`."""
    chunks = [_largest(part.float() / temperature, k, group) for part in logits.split(_TOKENS_AT_ONCE)]
    log_probs, indices, log_tail = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return TopKTeacher(log_probs, indices, log_tail)


def _largest(logits: Tensor, k: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    width, first = logits.shape[1], rank_in(group) * logits.shape[1]
    # One more than asked for: it is the largest of the others, from which their sum is measured.
    values, indices = logits.topk(min(k + 1, width), dim=1)
    indices = indices + first
    if size_of(group) > 1:
        values, indices = (_beside(x, group) for x in (values, indices))
        values, chosen = values.topk(min(k + 1, values.shape[1]), dim=1)
        indices = indices.gather(1, chosen)
    peak, peak_of_others = values[:, :1], values[:, k:]
    values, indices = values[:, :k], indices[:, :k]
    sums = (logits - peak).exp().sum(1, keepdim=True)
    if peak_of_others.shape[1] == 0:
        log_sum = sum_over(group, sums).log()
        return values - peak - log_sum, indices, torch.full_like(log_sum.squeeze(1), -torch.inf)
    here = (indices >= first) & (indices < first + width)
    column = torch.where(here, indices - first, width)  # of other ranks' tokens: one beside the vocabulary
    others = F.pad(logits - peak_of_others, (0, 1)).scatter_(1, column, -torch.inf)[:, :width]
    sums = sum_over(group, torch.cat((sums, others.exp_().sum(1, keepdim=True)), dim=1))
    log_sum, log_sum_of_others = sums.log().split(1, dim=1)
    log_tail = peak_of_others - peak - log_sum + log_sum_of_others
    return values - peak - log_sum, indices, log_tail.squeeze(1)


def _beside(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(size_of(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, dim=1)
