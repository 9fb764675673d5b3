"""One optimizer step: micro-batches through the pipeline, gradients, clip, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.optim.build import set_learning_rate
from megatron_distill.parallel import device

from .state import StepResult
from .student import Student


def train_step(student: Student, batches: Iterator[Batch], lr: float, *, should_stop: bool) -> StepResult:
    """Forward and backward over the global batch, one update with learning rate `lr`.

    A gradient that is not finite updates nothing. Collective over the role; the result is the same on every rank.
    """
    student.ddp.zero_grad_buffer()
    student.optimizer.zero_grad()
    reports = run_microbatches(student, batches, student.plan.layout.num_microbatches, forward_only=False)
    grad_norm = _gradient_norm(student)
    loss_sum, num_tokens, stop = sum_over_role(reports, float(should_stop))
    skipped = not math.isfinite(grad_norm) or not math.isfinite(loss_sum)
    if not skipped:
        set_learning_rate(student.optimizer, lr)
        student.optimizer.step_with_ready_grads()
    return StepResult(
        loss=loss_sum / max(num_tokens, 1),
        num_tokens=int(num_tokens),
        grad_norm=grad_norm,
        skipped=skipped,
        stop=stop > 0,
    )


def run_microbatches(student: Student, batches: Iterator[Batch], count: int, *, forward_only: bool) -> list[Any]:
    """`count` micro-batches through megatron-core's schedule for this layout; on the last stage, [loss sum, tokens]
    of each."""
    needs_data = student.model.pre_process or student.model.post_process
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=batches if needs_data else None,
        model=[student.ddp],
        num_microbatches=count,
        seq_length=student.plan.config.data.seq_length,
        micro_batch_size=student.plan.config.training.micro_batch_size,
        forward_only=forward_only,
    )


def forward_step(batches: Iterator[Batch] | None, model: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """megatron-core's forward step: this stage's output, and how the last stage turns it into a loss."""
    if batches is None:
        return model(None, None, None), _no_loss
    batch = next(batches)
    output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
    return output, partial(language_model_loss, batch.loss_mask)


def _no_loss(hidden: Tensor) -> Tensor:
    return hidden  # stages between the first and the last see no text, and megatron-core asks them for no loss


def language_model_loss(loss_mask: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over positions of -log p(next token) [micro-batch, seq], how many count, and both for the report
    (arXiv:2305.14864v2, Eq. 2 with its sign)."""
    loss_sum = (losses.float() * loss_mask).sum()
    num_tokens = loss_mask.sum().to(torch.int)
    return loss_sum, num_tokens, torch.stack((loss_sum.detach().double(), num_tokens.double()))


def sum_over_role(reports: list[Tensor], stop: float) -> tuple[float, float, float]:
    """Loss sum and tokens over all ranks, and whether any of them wants to stop (> 0). Collective over the role."""
    totals = torch.zeros(3, dtype=torch.float64, device=device.current())
    if reports and parallel_state.get_tensor_model_parallel_rank() == 0:
        totals[:2] = torch.stack(reports).sum(0)
    totals[2] = stop
    dist.all_reduce(totals)
    loss_sum, num_tokens, stops = totals.tolist()
    return loss_sum, num_tokens, stops


def _gradient_norm(student: Student) -> float:
    """Global L2 norm before clipping; gradients are clipped to --clip-grad."""
    optimizer = student.optimizer
    optimizer.prepare_grads()
    limit = student.plan.config.optimizer.clip_grad
    return float(optimizer.clip_grad_norm(limit if limit > 0 else math.inf))
