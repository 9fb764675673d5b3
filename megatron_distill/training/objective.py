"""What a student minimises beside its cross-entropy, each part of it on the pipeline stage that has the layers.

    L = w_lm L_LM + sum_c w_c s_c l_c

megatron-core divides every gradient once by the global number of tokens, so each rank adds sums over tokens. Losses of
logits are fused with the output projection on the last stage. Losses inside enter the graph behind their layer: the
forward pass goes on with the same hidden state, and the backward pass starts from 1 there. Sources: see losses/.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.utils import make_viewless_tensor
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.losses.base import Loss, LossInputs
from megatron_distill.losses.teacher_signal import HiddenTeacher, LogitTeacher, Teacher, TopKTeacher
from megatron_distill.losses.total import LM
from megatron_distill.losses.vanilla import Vanilla
from megatron_distill.models.build import Decoder
from megatron_distill.models.capture import Capture
from megatron_distill.tap import Tap
from megatron_distill.teachers.needs import TABLES, Needs, stage_of


class TeacherSource(Protocol):
    """Where what a teacher shows comes from."""

    waited_seconds: float

    @property
    def tables(self) -> Mapping[Tap, Tensor]:
        """The teacher's embedding table and output matrix, where they are needed on this rank."""

    def take(self, number: int, batch: Batch, taps: Any) -> dict[Tap, Tensor]:
        """What is tapped of the teacher for a micro-batch."""

    def close(self) -> None:
        """No more is needed."""


@dataclass(frozen=True)
class Weighted:
    """A loss and its weight."""

    loss: Loss
    weight: float


@dataclass(frozen=True)
class _Micro:
    """A micro-batch as the losses see it."""

    batch: Batch
    labels: Tensor
    mask: Tensor
    """Both [seq, batch]."""
    teacher: Mapping[Tap, Tensor]


class Objective:
    """The losses of this rank. Inactive, the model computes its cross-entropy as without a teacher."""

    def __init__(
        self,
        model: Decoder,
        layers: tuple[int, ...],
        terms: tuple[Weighted, ...],
        needs: Needs,
        source: TeacherSource,
        *,
        lm_weight: float,
        counts_gradients: bool,
        teacher_vocab_size: int | None = None,
    ) -> None:
        """`counts_gradients`: whether DDP waits for a gradient of every parameter, as it does to overlap reductions.
        `teacher_vocab_size`: tokens to which the teacher gives a probability; None: as many as the student."""
        self.model, self.terms, self.needs, self.source = model, terms, needs, source
        self.lm_weight, self.counts_gradients = lm_weight, counts_gradients
        self.teacher_vocab_size = teacher_vocab_size or model.shape.num_outcomes
        self.scales: Mapping[str, float] = {}
        self.sums: dict[str, Tensor] = {}
        """Components of the step so far, summed over this rank's tokens."""
        stages, stage = parallel_state.get_pipeline_model_parallel_world_size(), _stage()
        own = [tap for tap in needs.of_student(layers) if stage_of(tap, layers, stages) == stage]
        self._own = frozenset(own)
        self.teacher_taps = [other for tap in own for other in needs.of_teacher(tap) if other.kind not in TABLES]
        self.group = parallel_state.get_tensor_model_parallel_group() if _tensor_size() > 1 else None
        self._by_layer = {
            index: [term for term in terms if any(tap.layer == index for tap in term.loss.taps(layers))]
            for index in model.layer_indices
        }
        self._logits = next((t for t in terms if isinstance(t.loss, Vanilla)), None) if model.post_process else None
        tables = [term for term in terms if Tap("embedding") in term.loss.taps(layers)]
        self._at_embedding = tables if model.pre_process else []
        watched = [tap for tap in own if tap.layer is not None]
        if self._at_embedding:  # its loss enters behind the first layer
            watched.append(Tap("hidden", model.layer_indices[0]))
        self._capture = Capture(model, watched, self._after_layer)
        self._mode = ""
        self._micro: _Micro | None = None
        self._number = 0
        self._recomputed: dict[int, deque[_Micro]] = {}

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all that is measured, alike on every rank of the role."""
        return tuple(name for term in self.terms for name in term.loss.components)

    @contextmanager
    def active(self, first: int, scales: Mapping[str, float] | None) -> Iterator[None]:
        """Compute the losses of micro-batches from number `first` on; with `scales` train, without only measure."""
        self._number, self.scales = first, scales or {}
        self._mode = "measure" if scales is None else "train"
        self.sums = {}
        self._recomputed = {index: deque() for index in self.model.layer_indices}
        self.model.head = self._head if self._logits is not None else None
        try:
            yield
        finally:
            self._mode, self.model.head, self._micro = "", None, None

    def begin(self, batch: Batch) -> None:
        """Take what the teacher shows of the next micro-batch. Collective over the tensor-parallel group."""
        number, self._number = self._number, self._number + 1
        shown = self.source.take(number, batch, self.teacher_taps)
        self._micro = _Micro(batch, batch.labels.t(), batch.loss_mask.t(), shown)

    def finish(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last stage's objective of a micro-batch, its tokens, and [cross-entropy, tokens] for the report."""
        assert self._micro is not None
        mask = self._micro.mask
        num_tokens = mask.sum()
        if self._logits is None:
            lm_sum = (output.float() * self._micro.batch.loss_mask).sum()
            output = lm_sum * self.lm_weight
        else:
            lm_sum = self.sums.pop(LM)
        report = torch.stack((lm_sum.detach().double(), num_tokens.double()))
        return output, num_tokens.to(torch.int), report

    def reports(self) -> list[float]:
        """Sums of `components` on this rank, and the seconds a last stage has waited for its teacher since then."""
        values = [float(self.sums.get(name, 0.0)) for name in self.components]
        waited, self.source.waited_seconds = self.source.waited_seconds, 0.0
        return [*values, waited if self.model.post_process else 0.0]

    def _head(self, hidden: Tensor) -> Tensor:
        """Cross-entropy and divergence on the last stage, fused with the output projection."""
        micro, term, model = self._micro, self._logits, self.model
        assert micro is not None and term is not None and isinstance(term.loss, Vanilla)
        splits = model.config.sequence_parallel
        if splits:
            hidden = gather_from_sequence_parallel_region(hidden)  # its gradient is reduce-scattered
        tied = model.share_embeddings_and_output_weights
        weight = model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
        buffer = getattr(weight, "main_grad", None) if torch.is_grad_enabled() and weight.requires_grad else None
        if buffer is not None and self.counts_gradients:
            weight = _CountedWeight.apply(weight)
        found = term.loss.fused(
            LossInputs(
                layers=(),
                student={Tap("final_hidden"): hidden, Tap("output_weight"): weight},
                teacher={},
                labels=micro.labels,
                mask=micro.mask,
                group=self.group,
                sequence_parallel=splits,
                teacher_signal=self._signal(micro.teacher),
            ),
            weights=(self.lm_weight, self._factor(term, "logits")),
            weight_gradient=buffer,
            vocab_size=model.shape.num_outcomes,
            teacher_vocab_size=self.teacher_vocab_size,
        )
        self._add({LM: found.lm_sum, "logits": found.kd_sum})
        assert found.objective is not None
        return found.objective.clone()  # nor here

    def _signal(self, shown: Mapping[Tap, Tensor]) -> Teacher:
        if Tap("final_hidden") in shown:
            return HiddenTeacher(shown[Tap("final_hidden")].flatten(0, 1), self.source.tables[Tap("output_weight")])
        if Tap("logits") in shown:
            return LogitTeacher(shown[Tap("logits")].flatten(0, 1))
        top, indices, tail = (shown[Tap(kind)].flatten(0, 1) for kind in ("top_log_probs", "top_indices", "tail"))
        return TopKTeacher(top, indices.long(), tail.flatten())

    def _after_layer(self, index: int, found: dict[Tap, Tensor], hidden: Tensor) -> Tensor:
        micro = self._micro_of(index)
        if micro is None:
            return hidden
        own = {tap: x for tap, x in found.items() if tap in self._own}
        other = {tap: micro.teacher[self.needs.of_teacher(tap)[0]] for tap in own}
        inputs = LossInputs(
            layers=(index,),
            student=_as_many_heads(own, index),
            teacher=_as_many_heads(other, index),
            labels=micro.labels,
            mask=micro.mask,
            group=self.group,
            sequence_parallel=self.model.config.sequence_parallel,
        )
        parts = [(term, term.loss(inputs)) for term in self._by_layer[index]]
        if index == self.model.layer_indices[0]:
            parts += [(term, term.loss(self._of_tables(inputs))) for term in self._at_embedding]
        for _, values in parts:
            self._add(values)
        if self._mode == "measure" or not parts:
            return hidden
        shares = [self._factor(term, name) * value for term, values in parts for name, value in values.items()]
        joined = _WithLoss.apply(hidden, torch.stack(shares).sum())
        # megatron-core frees what a stage puts out, and will not free a view.
        return make_viewless_tensor(joined, requires_grad=True, keep_graph=True)

    def _micro_of(self, index: int) -> _Micro | None:
        """The micro-batch that a layer is running, None where nothing is to be compared.

        With activation recomputation a layer runs first without gradients and again in the backward pass, by when
        other micro-batches have begun; those of a layer come back in their order.
        """
        if self._mode != "train" or not self.model.config.recompute_granularity:
            return self._micro
        if torch.is_grad_enabled():
            return self._recomputed[index].popleft()
        assert self._micro is not None
        self._recomputed[index].append(self._micro)
        return None

    def _of_tables(self, inputs: LossInputs) -> LossInputs:
        table = Tap("embedding")
        return replace(
            inputs,
            student={table: self.model.embedding.word_embeddings.weight},
            teacher={table: self.source.tables[table]},
            vocab_size=min(self.model.shape.num_outcomes, self.teacher_vocab_size),
        )

    def _factor(self, term: Weighted, name: str) -> float:
        return term.weight * self.scales.get(name, 1.0)

    def _add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            before = self.sums.get(name)
            self.sums[name] = value.detach().double() if before is None else before + value.detach()

    def close(self) -> None:
        """Take the hooks off the model."""
        self._capture.close()


class _WithLoss(torch.autograd.Function):
    """The hidden states as they are; the loss gets a gradient of 1 on the way back."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, loss: Tensor) -> Tensor:
        ctx.one = torch.ones_like(loss)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], ctx.one


class _CountedWeight(torch.autograd.Function):
    """A weight whose gradient was added to its buffer already: autograd sees one of zeros, so that DDP counts it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def _as_many_heads(found: Mapping[Tap, Tensor], index: int) -> dict[Tap, Tensor]:
    """Keys and values repeated for each query head that shares them."""
    queries = found.get(Tap("queries", index))
    if queries is None:
        return dict(found)
    heads = queries.shape[2]
    shared = {tap: x for tap, x in found.items() if tap.kind in ("keys", "values") and x.shape[2] != heads}
    return dict(found) | {tap: x.repeat_interleave(heads // x.shape[2], dim=2) for tap, x in shared.items()}


def _stage() -> int:
    return parallel_state.get_pipeline_model_parallel_rank()


def _tensor_size() -> int:
    return parallel_state.get_tensor_model_parallel_world_size()
