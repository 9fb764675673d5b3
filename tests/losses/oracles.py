"""The losses written out plainly in float64 and differentiated by autograd, on whole tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(name: str, teacher_logits: Tensor, student_logits: Tensor, **parameters: float) -> Tensor:
    """D of each token, [tokens]."""
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a.log() - b.log())).sum(-1)

    if name == "symmetric":
        w = parameters.get("beta", 0.9)
        return (1 - w) * kl(p, q) + w * kl(q, p)
    if name == "jsd":
        b = parameters.get("beta", 0.9)
        m = b * p + (1 - b) * q
        return b * kl(p, m) + (1 - b) * kl(q, m)
    a = parameters.get("alpha", 0.1)
    return {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "tvd": lambda: (p - q).abs().sum(-1) / 2,
        "skew-kl": lambda: kl(p, a * p + (1 - a) * q),
        "skew-reverse-kl": lambda: kl(q, (1 - a) * p + a * q),
    }[name]()


def lm(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def scores(x1: Tensor, x2: Tensor, heads: int) -> Tensor:
    """[batch, heads, queries, keys] of X1 X2^T / sqrt(head dim), X [seq, batch, ...] cut into `heads`."""
    a, b = (x.reshape(*x.shape[:2], heads, -1).permute(1, 2, 0, 3) for x in (x1, x2))
    return a @ b.transpose(-1, -2) / a.shape[-1] ** 0.5


def causal(size: int) -> Tensor:
    """1 where a query may look."""
    return torch.ones(size, size).tril().bool()


def relation(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """Sum over tokens of the mean over heads of KL(teacher's row || student's row)."""
    past = causal(len(mask))
    log_q, log_p = (scores(*x, heads).masked_fill(~past, -1e300).log_softmax(-1) for x in (student, teacher))
    rows = (log_p.exp() * (log_p - log_q)).masked_fill(~past, 0).sum(-1)
    return (rows.mean(1) * mask.t()).sum()


def attention(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared differences over causal entries of counted queries, and how many."""
    heads = student[0].shape[2]
    counts = causal(len(mask)) * mask.t()[:, None, :, None]
    difference = scores(*student, heads) - scores(*teacher, heads)
    return (difference.square() * counts).sum(), counts.sum() * heads
