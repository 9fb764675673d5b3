"""One optimizer step: micro-batches through the pipeline, gradients, clip, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.losses.total import LM
from megatron_distill.optim.build import set_learning_rate
from megatron_distill.parallel import device

from .objective import Objective
from .state import StepResult
from .student import Student


def train_step(
    student: Student,
    batches: Iterator[Batch],
    lr: float,
    *,
    should_stop: bool,
    first: int = 0,
    scales: Mapping[str, float] | None = None,
) -> StepResult:
    """Forward and backward over the global batch, one update with learning rate `lr`.

    A gradient that is not finite updates nothing. Collective over the role; the result is the same on every rank.

    Args:
        first: number of the first micro-batch, counted on each replica from the beginning of the run.
        scales: of the components of the distillation loss; None: this step has no teacher.
    """
    student.ddp.zero_grad_buffer()
    student.optimizer.zero_grad()
    count = student.plan.layout.num_microbatches
    objective = student.objective if scales is not None else None
    if objective is None:
        reports = run_microbatches(student, batches, count, forward_only=False)
    else:
        with objective.active(first, scales):
            reports = run_microbatches(student, batches, count, forward_only=False, objective=objective)
    grad_norm = _gradient_norm(student)
    extra = objective.reports() if objective else []
    loss_sum, num_tokens, stop, *sums = sum_over_role(reports, float(should_stop), extra)
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
        components=_means(objective, sums, num_tokens),
        waited_seconds=sums[-1] / student.plan.layout.data if objective else 0.0,
    )


def measure(student: Student, batches: list[Batch], first: int) -> dict[str, float]:
    """Means of the cross-entropy and of each component over the global batch, nothing trained.

    Collective over the role. `first` is the number of the first micro-batch.
    """
    objective = student.objective
    assert objective is not None
    with torch.no_grad(), objective.active(first, None):
        reports = run_microbatches(student, iter(batches), len(batches), forward_only=True, objective=objective)
    loss_sum, num_tokens, _, *sums = sum_over_role(reports, 0.0, objective.reports())
    return {LM: loss_sum / max(num_tokens, 1)} | _means(objective, sums, num_tokens)


def _means(objective: Objective | None, sums: list[float], num_tokens: float) -> dict[str, float]:
    if objective is None:
        return {}
    return {name: total / max(num_tokens, 1) for name, total in zip(objective.components, sums, strict=False)}


def run_microbatches(
    student: Student,
    batches: Iterator[Batch],
    count: int,
    *,
    forward_only: bool,
    objective: Objective | None = None,
) -> list[Any]:
    """`count` micro-batches through megatron-core's schedule for this layout; on the last stage, [loss sum, tokens]
    of each."""
    # A stage in the middle reads no text for itself. With a teacher it does read in the seed phase too, although the
    # losses of its layers come later: its stream must be where the other stages' streams are when they begin.
    needs_data = student.model.pre_process or student.model.post_process or student.plan.teacher is not None
    return get_forward_backward_func()(
        forward_step_func=forward_step if objective is None else partial(forward_step, objective=objective),
        data_iterator=batches if needs_data else None,
        model=[student.ddp],
        num_microbatches=count,
        seq_length=student.plan.config.data.seq_length,
        micro_batch_size=student.plan.config.training.micro_batch_size,
        forward_only=forward_only,
    )


def forward_step(
    batches: Iterator[Batch] | None, model: Any, objective: Objective | None = None
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """megatron-core's forward step: this stage's output, and how the last stage turns it into a loss."""
    if batches is None:
        return model(None, None, None), _no_loss
    batch = next(batches)
    if objective is not None:
        objective.begin(batch)
    output = model(batch.tokens, batch.position_ids, None, labels=batch.labels)
    return output, partial(language_model_loss, batch.loss_mask) if objective is None else objective.finish


def _no_loss(hidden: Tensor) -> Tensor:
    return hidden  # stages between the first and the last see no text, and megatron-core asks them for no loss


def language_model_loss(loss_mask: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over positions of -log p(next token) [micro-batch, seq], how many count, and both for the report
    (arXiv:2305.14864v2, Eq. 2 with its sign)."""
    loss_sum = (losses.float() * loss_mask).sum()
    num_tokens = loss_mask.sum().to(torch.int)
    return loss_sum, num_tokens, torch.stack((loss_sum.detach().double(), num_tokens.double()))


def sum_over_role(reports: list[Tensor], stop: float, extra: list[float] | None = None) -> list[float]:
    """Over all ranks: loss sum, tokens, whether any of them wants to stop (> 0), and `extra` figures of which the
    ranks of a tensor-parallel group have the same. Collective over the role."""
    others = extra or []
    totals = torch.zeros(3 + len(others), dtype=torch.float64, device=device.current())
    if parallel_state.get_tensor_model_parallel_rank() == 0:
        if reports:
            totals[:2] = torch.stack(reports).sum(0)
        totals[3:] = torch.tensor(others, dtype=torch.float64)
    totals[2] = stop
    dist.all_reduce(totals)
    return totals.tolist()


def _gradient_norm(student: Student) -> float:
    """Global L2 norm before clipping; gradients are clipped to --clip-grad."""
    optimizer = student.optimizer
    optimizer.prepare_grads()
    limit = student.plan.config.optimizer.clip_grad
    return float(optimizer.clip_grad_norm(limit if limit > 0 else math.inf))
