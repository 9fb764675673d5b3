"""Divergences between the teacher's distribution p and the student's q over the vocabulary, as one family.

Each is a sum D = sum_v d_v over the vocabulary. With c_v = dD / d log q_v the gradient by the student's logits z is

    dD/dz_v = c_v - q_v sum_u c_u,

so a divergence is two elementwise functions of log p and log q, and under tensor parallelism both sums are one
all-reduce of two numbers a token. A multiple of q_v added to c_v changes nothing; it is chosen such that c_v is exactly
0 where p_v = q_v, and a model distilled from itself has exactly no gradient.

A logit of -inf is a probability of 0: 0 log 0 is 0, and a term that would be infinite (forward KL where only q_v is 0,
reverse KL where only p_v is 0) contributes nothing to value or gradient.

Sources: KL: Hinton et al. 2015, arXiv:1503.02531; JSD: GKD, arXiv:2306.13649, section 2;
TVD: f-DISTILL, arXiv:2307.15190; skew KL: DistiLLM, arXiv:2402.03898, section 3.1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .collectives import max_over, sum_over

Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From log p and log q, both [tokens, vocab of this rank], to d_v and c_v of the same shape."""

_LARGEST_LOG_RATIO = 80.0
"""exp of it is a number in fp32; whatever is beyond has a weight below 1e-34."""


@dataclass(frozen=True)
class Divergence:
    """A member of the family: its name on the command line and its elementwise terms."""

    name: str
    terms: Terms


DIVERGENCES: dict[str, Callable[..., Divergence]] = {}
"""From a name to the function that makes the divergence from its parameters."""


def _named(name: str) -> Callable[[Callable[..., Terms]], Callable[..., Divergence]]:
    def add(make: Callable[..., Terms]) -> Callable[..., Divergence]:
        def build(**parameters: float) -> Divergence:
            return Divergence(name, make(**parameters))

        build.__doc__ = make.__doc__
        DIVERGENCES[name] = build
        return build

    return add


def divergence(name: str, **parameters: float) -> Divergence:
    """The divergence of that name.

    Raises:
        ConfigError: there is none of that name, it has no such parameter, or the parameter is out of range.
    """
    if name not in DIVERGENCES:
        near = difflib.get_close_matches(name, DIVERGENCES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(DIVERGENCES)}"
        raise ConfigError(f"no divergence is called {name}; {hint}")
    try:
        return DIVERGENCES[name](**parameters)
    except TypeError:
        given = ", ".join(parameters)
        raise ConfigError(f"divergence {name} has not all of the parameters {given}") from None


@_named("forward-kl")
def forward_kl() -> Terms:
    """KL(p || q) = sum p log(p/q)."""
    return _forward_kl


@_named("reverse-kl")
def reverse_kl() -> Terms:
    """KL(q || p) = sum q log(q/p)."""
    return _reverse_kl


@_named("symmetric")
def symmetric(beta: float = 0.9) -> Terms:
    """(1 - beta) KL(p || q) + beta KL(q || p)."""
    _check("symmetric", "beta", beta, 0 <= beta <= 1, "from 0 to 1")

    def terms(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        forward, reverse = _forward_kl(log_p, log_q), _reverse_kl(log_p, log_q)
        d, c = (torch.lerp(f, r, beta) for f, r in zip(forward, reverse, strict=True))
        return d, c

    return terms


@_named("jsd")
def jsd(beta: float = 0.9) -> Terms:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q: beta belongs to the teacher."""
    _check("jsd", "beta", beta, 0 < beta < 1, "between 0 and 1, both excluded")

    def terms(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        p, q, x = _ratio(log_p, log_q)
        log_m_over_p = torch.add(x, 1 - x, alpha=beta).log_()
        y = x.reciprocal_()
        log_m_over_q = torch.add(y, 1 - y, alpha=1 - beta).log_()
        c = q.mul_(log_m_over_q).mul_(beta - 1)
        return c.sub(p.mul_(log_m_over_p), alpha=beta), c

    return terms


@_named("tvd")
def tvd() -> Terms:
    """Total variation, sum |p - q| / 2."""

    def terms(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        q = log_q.exp()
        difference = q - log_p.exp()
        return difference.abs().mul_(0.5), difference.sign_().mul_(q).mul_(0.5)

    return terms


@_named("skew-kl")
def skew_kl(alpha: float = 0.1) -> Terms:
    """KL(p || alpha p + (1 - alpha) q)."""
    _check("skew-kl", "alpha", alpha, 0 < alpha < 1, "between 0 and 1, both excluded")

    def terms(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        p, q, x = _ratio(log_p, log_q)
        m_over_p = torch.add(x, 1 - x, alpha=alpha)
        d = p.mul_(m_over_p.log()).neg_()
        return d, m_over_p.reciprocal_().neg_().add_(1).mul_(q).mul_(1 - alpha)

    return terms


@_named("skew-reverse-kl")
def skew_reverse_kl(alpha: float = 0.1) -> Terms:
    """KL(q || (1 - alpha) p + alpha q); the gradient flows through both q."""
    _check("skew-reverse-kl", "alpha", alpha, 0 < alpha < 1, "between 0 and 1, both excluded")

    def terms(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        q, _, y = _ratio(log_q, log_p)
        m_over_q = torch.add(y, 1 - y, alpha=alpha)
        d = q.mul(m_over_q.log()).neg_()
        return d, m_over_q.reciprocal_().neg_().add_(1).mul_(q).mul_(alpha).add_(d)

    return terms


def _check(name: str, parameter: str, value: float, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{parameter}={value} of divergence {name} must be {rule}")


def _forward_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    p = log_p.exp()
    c = (log_q.exp() - p).masked_fill_(log_q.isneginf(), 0)
    return _zero_where_infinite(log_p - log_q).mul_(p), c


def _reverse_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    d = _zero_where_infinite(log_q - log_p).mul_(q)
    # Left out terms lack the +q that was taken off everywhere.
    return d, torch.where(log_p.isneginf(), -q, d)


def _zero_where_infinite(log_ratio: Tensor) -> Tensor:
    return log_ratio.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _ratio(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, q, q/p, the ratio bounded and 1 where both are 0.

    A mixture m is to be seen from the distribution whose log(m/.) is wanted: log(q/p) - log(m/p) is log(q/m), too, but
    where q is nearly all of m it is the small difference of two numbers of up to 80.
    """
    log_x = (log_q - log_p).nan_to_num_(nan=0.0).clamp_(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return log_p.exp(), log_q.exp(), log_x.exp_()


def log_softmax(logits: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Log-probabilities, [tokens, vocab of this rank], of logits split over the ranks of `group` (None: not split).

    Two collectives of one number a token; in fp32, or in fp64 if the logits are. Autograd does not see it.
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    shifted = logits - max_over(group, logits.amax(-1, keepdim=True))
    return shifted.sub_(sum_over(group, shifted.exp().sum(-1, keepdim=True)).log_())


def value_and_gradient(
    which: Divergence,
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    group: dist.ProcessGroup | None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """temperature^2 D(softmax(teacher / temperature), softmax(student / temperature)) of each token.

    Args:
        student_logits, teacher_logits: [tokens, vocab of this rank].
        group: the ranks over which the vocabulary is split; None: not split. Three collectives.

    Returns:
        The divergence [tokens], the same on every rank, and its gradient by the student's logits, [tokens, vocab of
        this rank], in fp32 (fp64 for fp64 logits).
    """
    log_q = log_softmax(student_logits / temperature, group)
    log_p = log_softmax(teacher_logits / temperature, group)
    d, c = which.terms(log_p, log_q)
    value, total = sum_over(group, torch.stack((d.sum(-1), c.sum(-1))))
    gradient = c - log_q.exp() * total.unsqueeze(-1)
    return value * temperature**2, gradient * temperature
