"""What a loss on logits can know of the teacher: final hidden states, logits, or the largest probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    tail: Tensor
    """[tokens], probability of all others together."""

    def log_outcomes(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Log-probabilities of the k + 1 outcomes of some tokens, [tokens, k + 1]."""
        tail = self.tail[start:stop].to(dtype).log().unsqueeze(1)
        return torch.cat((self.log_probs[start:stop].to(dtype), tail), dim=1)


DenseTeacher = HiddenTeacher | LogitTeacher
Teacher = DenseTeacher | TopKTeacher


def project(hidden: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write hidden @ weight.T to `out`, multiplied in the matrix' dtype: [tokens, hidden], [vocab, hidden]."""
    if out.dtype == weight.dtype:
        torch.mm(hidden.to(weight.dtype), weight.t(), out=out)
    else:
        out.copy_(torch.mm(hidden.to(weight.dtype), weight.t()))
