"""Cross-entropy and a divergence from the teacher, fused with the output projection (arXiv:2305.14864v2, Eq. 2 and 3).

Final hidden states and output matrices go in, sums and gradients come out. A chunk of tokens at a time, the student's
and the teacher's logits are made, normalised over the tensor-parallel ranks, turned into both losses and, in place,
into their gradient by the student's logits, which is multiplied out at once into gradients of the hidden states and
the output matrix. All of it happens in the forward pass: chunks in plain autograd would all be kept for the backward
pass and save nothing. There are never more than two chunks of logits.

    lm   = sum_t mask_t (-log softmax(z_t)[label_t])
    kd   = sum_t mask_t tau^2 D(softmax(z^teacher_t / tau), softmax(z_t / tau))

The gradient can leave the forward pass in one of two ways, for the scales of the two losses may depend on their values:

* combined (`weights` given): one pair of products for weights[0] lm + weights[1] kd. Normalisation then takes its
  scales from an earlier step.
  With `weight_gradient`, the matrix' part is added to the caller's buffer and no other of its size is made.
* separable (`weights=None`): a pair of products for each loss, and their coefficients are whatever the backward pass
  brings. Exact for scales known only after the forward pass, at 6 products of tokens x hidden x vocab instead of 4, and
  the memory of a second gradient of the matrix. A second pass over the logits would cost as much in time: two products.

Collectives a chunk over the tensor-parallel group: one maximum, one sum of normalisers, one sum of divergences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_distill.config.error import ConfigError

from .collectives import max_over, rank_in, size_of, sum_over
from .divergences import Divergence
from .teacher_signal import DenseTeacher, Teacher, TopKTeacher, hide_rows, project

BUFFER_BYTES = 48 * 2**20
"""Of each of the two chunks of logits, unless the number of tokens is given."""
Streams = tuple[tuple[float | Tensor, float | Tensor], ...]
"""(weight of lm, weight of kd) of each linear combination whose gradient is wanted."""
_BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**24}
"""Of the rows worked on at a time: on a CPU intermediate results stay in the cache, on a GPU launches are few."""


@dataclass(frozen=True)
class LogitLosses:
    """Sums over the tokens of one call, fp32, the same on every tensor-parallel rank."""

    lm_sum: Tensor
    """Cross-entropy. Has a gradient if the call was separable."""
    kd_sum: Tensor
    """Divergence from the teacher. Has a gradient if the call was separable."""
    objective: Tensor | None
    """weights[0] lm_sum + weights[1] kd_sum with its gradient; None if the call was separable."""
    num_tokens: Tensor
    """Sum of the mask."""


def distill_logits(
    hidden: Tensor,
    weight: Tensor,
    teacher: Teacher,
    labels: Tensor,
    mask: Tensor,
    *,
    which: Divergence,
    group: dist.ProcessGroup | None,
    temperature: float = 1.0,
    weights: tuple[float | Tensor, float | Tensor] | None = None,
    weight_gradient: Tensor | None = None,
    chunk_tokens: int | None = None,
    reduce_hidden_gradient: bool = True,
    vocab_size: int | None = None,
    teacher_vocab_size: int | None = None,
) -> LogitLosses:
    """Both losses of some tokens, with gradients for `hidden` and `weight`. Collective over `group`.

    Args:
        hidden: final hidden states [tokens, hidden], all tokens on every rank of `group`.
        weight: this rank's rows of the output matrix, [vocab of this rank, hidden].
        teacher: what is known of the teacher, with the vocabulary split in the same way.
        labels: next tokens [tokens], numbers in the whole vocabulary; any number where the mask is 0.
        mask: [tokens], 1 where a token counts.
        which: the divergence, `divergence("forward-kl")` for the papers'.
        group: the ranks over which the vocabulary is split; None: not split.
        temperature: tau, of the divergence only; its square is a factor.
        weights: of the cross-entropy and of the divergence, numbers or tensors without dimensions.
        weight_gradient: a buffer [vocab of this rank, hidden] in fp32, such as megatron-core's `main_grad`, to which
            the matrix' gradient is added during this call; autograd then sees none for it. `weights` must hold every
            factor there is, and the backward pass must start from 1 at `objective`, which it checks.
        chunk_tokens: tokens of a chunk; the results do not depend on it.
        reduce_hidden_gradient: sum the hidden states' gradient over `group`; False leaves each rank's part, for a
            caller that reduce-scatters it over the sequence.
        vocab_size: tokens of the whole vocabulary; rows beyond them pad the matrices and have no probability. None:
            every row counts.
        teacher_vocab_size: the same of the teacher; tokens that only one of both has are no outcome of the teacher.

    Raises:
        ConfigError: teacher and student differ in tokens or vocabulary, or the temperature is not positive.
        ValueError: a buffer for the gradient without weights.
    """
    _check(hidden, weight, teacher, temperature)
    if weight_gradient is not None and weights is None:
        raise ValueError("a gradient can be added to a buffer in the forward pass only with weights known by then")
    trains = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    streams: Streams = ((1.0, 0.0), (0.0, 1.0)) if weights is None else (weights,)
    chunk = chunk_tokens or _tokens_of_a_chunk(weight, len(hidden))
    num_outcomes = weight.shape[0] * size_of(group) if vocab_size is None else vocab_size
    num_common = num_outcomes if teacher_vocab_size is None else min(num_outcomes, teacher_vocab_size)
    options = (chunk, reduce_hidden_gradient, weight_gradient, num_outcomes, num_common)
    work = _Work(teacher, labels, mask, which, group, temperature, streams if trains else (), *options)
    sums, values = _DistillLogits.apply(hidden, weight, work)
    lm_sum, kd_sum = values.unbind() if trains and weights is None else sums.unbind()
    objective = None
    if weights is not None:
        objective = values[0] if trains else weights[0] * lm_sum + weights[1] * kd_sum
    return LogitLosses(lm_sum, kd_sum, objective, mask.sum())


def _check(hidden: Tensor, weight: Tensor, teacher: Teacher, temperature: float) -> None:
    if temperature <= 0:
        raise ConfigError(f"temperature={temperature} must be above 0")
    expected = (hidden.shape[0], weight.shape[0])
    if isinstance(teacher, TopKTeacher):
        if len(teacher.log_probs) != len(hidden):
            raise ConfigError(
                f"the teacher's largest probabilities are of {len(teacher.log_probs)} tokens, not of {len(hidden)}"
            )
    elif teacher.size != expected:
        raise ConfigError(
            f"the teacher's logits are {list(teacher.size)} [tokens, vocabulary of a rank] and the student's are "
            f"{list(expected)}; both need the same batch, tokenizer and padded vocabulary"
        )


def _tokens_of_a_chunk(weight: Tensor, tokens: int) -> int:
    fitting = BUFFER_BYTES // (weight.shape[0] * _compute_dtype(weight).itemsize)
    return max(1, min(tokens, fitting // 16 * 16 or fitting))


def _compute_dtype(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


@dataclass(frozen=True)
class _Work:
    """What a call is about, besides the tensors that get gradients."""

    teacher: Teacher
    labels: Tensor
    mask: Tensor
    which: Divergence
    group: dist.ProcessGroup | None
    temperature: float
    streams: Streams
    chunk: int
    reduce_hidden_gradient: bool
    weight_gradient: Tensor | None
    num_outcomes: int
    """Tokens of the student; rows of the whole vocabulary beyond them are padding."""
    num_common: int
    """Those of them that the teacher has."""


class _DistillLogits(torch.autograd.Function):
    """From hidden states and matrix to [lm, kd] without gradient, and the values of the streams, with gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, work: _Work) -> tuple[Tensor, Tensor]:
        dtype, tokens = _compute_dtype(weight), hidden.shape[0]
        gradients = [_Gradients.zeros(hidden, weight, work.weight_gradient) for _ in work.streams]
        student, other = (torch.empty(work.chunk, weight.shape[0], dtype=dtype, device=weight.device) for _ in "st")
        sums = torch.zeros(2, dtype=dtype, device=weight.device)
        for start in range(0, tokens, work.chunk):
            stop = min(start + work.chunk, tokens)
            rows = hidden[start:stop]
            chunk = _Chunk(work, student[: stop - start], other[: stop - start], start)
            project(rows, weight, chunk.student)
            hide_rows(chunk.student, work.num_outcomes, work.group)
            sums += chunk.losses()
            if work.streams:
                for part, into in zip(chunk.logit_gradients(), gradients, strict=False):
                    into.add(part, rows, weight, start)
        if work.reduce_hidden_gradient:
            for gradient in gradients:
                sum_over(work.group, gradient.hidden)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(sums)
        values = [lm * sums[0] + kd * sums[1] for lm, kd in work.streams]
        return sums, torch.stack(values) if values else sums.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of a fused loss were given away in its first backward pass")
        first, *others = zip(grads[1].unbind(), ctx.gradients, strict=True)
        ctx.gradients = None  # they are scaled in place: a second matrix would be the largest tensor of all
        if first[1].is_given:
            torch._assert_async(first[0] == 1)
            return first[1].hidden, None, None
        total = first[1].times(first[0])
        for factor, gradient in others:
            total.add_times(gradient, factor)
        return total.hidden, total.weight.to(total.weight_dtype), None


@dataclass
class _Gradients:
    """Of the hidden states, in their dtype, and of the matrix, accumulated over chunks in fp32."""

    hidden: Tensor
    weight: Tensor
    weight_dtype: torch.dtype
    is_given: bool
    """Whether `weight` is the caller's buffer."""

    @classmethod
    def zeros(cls, hidden: Tensor, weight: Tensor, given: Tensor | None) -> _Gradients:
        buffer = torch.zeros_like(weight, dtype=_compute_dtype(weight)) if given is None else given
        return cls(torch.empty_like(hidden), buffer, weight.dtype, given is not None)

    def add(self, logits: Tensor, rows: Tensor, weight: Tensor, start: int) -> None:
        """Multiply out a chunk's gradient by the logits [tokens of the chunk, vocab of this rank]."""
        low = logits.to(weight.dtype)
        self.hidden[start : start + len(rows)] = torch.mm(low, weight)
        if low.dtype == self.weight.dtype:
            self.weight.addmm_(low.t(), rows.to(low.dtype))
            return
        step = max(1, BUFFER_BYTES // (4 * self.weight.itemsize * weight.shape[1]))
        for first in range(0, len(weight), step):  # not all at once: the product is made in the low precision
            self.weight[first : first + step] += torch.mm(low[:, first : first + step].t(), rows.to(low.dtype))

    def times(self, factor: Tensor) -> _Gradients:
        self.hidden.mul_(factor)
        self.weight.mul_(factor)
        return self

    def add_times(self, other: _Gradients, factor: Tensor) -> None:
        self.hidden.add_(other.hidden * factor)
        self.weight.add_(other.weight.mul_(factor))


class _Chunk:
    """Losses and gradients of a chunk of tokens, in two buffers [tokens of the chunk, vocab of this rank].

    `student` holds the student's logits less their maximum, then the gradient of the first stream; `other` holds the
    teacher's, then c_v of the divergence, then the gradient of the second stream.
    """

    def __init__(self, work: _Work, student: Tensor, other: Tensor, start: int) -> None:
        self.work, self.student, self.other = work, student, other
        count, vocab = student.shape
        self.span = slice(start, start + count)
        self.mask = work.mask[self.span].to(student.dtype)
        labels = work.labels[self.span] - rank_in(work.group) * vocab
        self.is_here = (labels >= 0) & (labels < vocab)
        self.label = labels.clamp(0, vocab - 1).unsqueeze(1)
        step = max(1, _BLOCK_BYTES[student.device.type] // (vocab * student.itemsize))
        self.blocks = [slice(i, min(i + step, count)) for i in range(0, count, step)]

    def losses(self) -> Tensor:
        """Masked sums [lm, kd] of the chunk; leaves what the gradient needs."""
        if isinstance(self.work.teacher, TopKTeacher):
            divergence = self._against_largest(self.work.teacher)
        else:
            divergence = self._against_all(self.work.teacher)
        lm = self.log_sum - self.target
        return torch.stack(((lm * self.mask).sum(), (divergence * self.mask).sum() * self.work.temperature**2))

    def logit_gradients(self) -> tuple[Tensor, Tensor]:
        """The gradient of each stream by the logits of this rank; of one stream, only the first."""
        tau, streams = self.work.temperature, self.work.streams
        for rows in self.blocks:
            z, c, mask = self.student[rows], self.other[rows], self.mask[rows, None]
            q = self._log_q(rows).exp_()
            c.addcmul_(q, self.total_c[rows, None], value=-1).mul_(mask * tau)
            torch.sub(z, self.log_sum[rows, None], out=z).exp_()
            z.scatter_add_(1, self.label[rows], -self.is_here[rows, None].to(z.dtype))
            z.mul_(mask)
            if len(streams) == 1:
                lm, kd = streams[0]
                z.mul_(lm)
                z.add_(c.mul_(kd))
        return self.student, self.other

    def _against_all(self, teacher: DenseTeacher) -> Tensor:
        tau = self.work.temperature
        teacher.fill(self.other, self.span.start)
        hide_rows(self.other, self.work.num_common, self.work.group)
        largest = max_over(self.work.group, torch.stack((self.student.amax(1), self.other.amax(1))))
        sums = torch.empty(2 if tau == 1 else 3, *largest.shape[1:], dtype=largest.dtype, device=largest.device)
        for rows in self.blocks:
            z, t = self.student[rows], self.other[rows]
            t.sub_(largest[1, rows, None]).div_(tau)
            z.sub_(largest[0, rows, None])
            sums[0, rows], sums[1, rows] = z.exp().sum(1), t.exp().sum(1)
            if tau != 1:
                sums[2, rows] = z.div(tau).exp_().sum(1)
        sums = self._sum_with_target(sums)
        self.log_sum, log_teacher, self.log_sum_tau = sums[0].log(), sums[1].log(), sums[-1 if tau != 1 else 0].log()
        both = torch.empty_like(largest)
        for rows in self.blocks:
            log_p = self.other[rows].sub_(log_teacher[rows, None])
            d, c = self.work.which.terms(log_p, self._log_q(rows))
            both[0, rows], both[1, rows] = d.sum(1), c.sum(1)
            log_p.copy_(c)
        divergence, self.total_c = sum_over(self.work.group, both)
        return divergence

    def _against_largest(self, teacher: TopKTeacher) -> Tensor:
        """As if the k + 1 outcomes were the vocabulary; c of the tail is shared out in proportion to q."""
        tau, vocab = self.work.temperature, self.student.shape[1]
        largest = max_over(self.work.group, self.student.amax(1))
        index = teacher.indices[self.span] - rank_in(self.work.group) * vocab
        here = (index >= 0) & (index < vocab)
        index = index.clamp(0, vocab - 1)
        z_top = torch.where(here, self.student.gather(1, index) - largest.unsqueeze(1), 0)
        sums = torch.empty(2, *largest.shape, dtype=largest.dtype, device=largest.device)
        for rows in self.blocks:
            z = self.student[rows].sub_(largest[rows, None])
            sums[0, rows] = z.exp().sum(1)
            e = z.div(tau).exp_()
            # Summed without them, not one minus their sum: no cancellation. Others' indices point at some
            # token too, and must leave it alone, so the mass comes off by multiplying.
            e.scatter_reduce_(1, index[rows], (~here[rows]).to(e.dtype), "prod")
            sums[1, rows] = e.sum(1)
        packed = self._sum_with_target(torch.cat((sums, z_top.t())))
        top = packed[2:].t().div(tau)
        self.log_sum = packed[0].log()
        self.log_sum_tau = torch.logaddexp(packed[1].log(), top.logsumexp(1))
        log_q = torch.cat((top, packed[1].log().unsqueeze(1)), dim=1).sub_(self.log_sum_tau.unsqueeze(1))
        d, c = self.work.which.terms(teacher.log_outcomes(self.span.start, self.span.stop, log_q.dtype), log_q)
        self.total_c = c.sum(1)
        share = c[:, -1] / log_q[:, -1].exp().clamp_min(torch.finfo(c.dtype).tiny)
        for rows in self.blocks:
            torch.mul(self._log_q(rows).exp_(), share[rows, None], out=self.other[rows])
        c_top = torch.where(here, c[:, :-1] - self.other.gather(1, index), 0)
        self.other.scatter_add_(1, index, c_top)
        return d.sum(1)

    def _sum_with_target(self, sums: Tensor) -> Tensor:
        """`sums` [n, tokens] over the ranks, and with them the label's logit less the maximum, kept as `target`."""
        target = torch.where(self.is_here, self.student.gather(1, self.label).squeeze(1), 0)
        packed = sum_over(self.work.group, torch.cat((sums, target.unsqueeze(0))))
        self.target = packed[-1]
        return packed[:-1]

    def _log_q(self, rows: slice) -> Tensor:
        z = self.student[rows]
        scaled = z if self.work.temperature == 1 else z.div(self.work.temperature)
        return scaled - self.log_sum_tau[rows, None]
