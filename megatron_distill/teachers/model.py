"""A frozen decoder that shows what is inside it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.checkpoint.native import load_checkpoint
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout
from megatron_distill.losses.teacher_signal import hide_rows, largest
from megatron_distill.models.build import BuildOptions, build_decoder
from megatron_distill.models.capture import Capture
from megatron_distill.tap import Tap


class FrozenTeacher:
    """This rank's part of a teacher."""

    def __init__(
        self,
        checkpoint: Path,
        shape: ModelShape,
        layers: tuple[int, ...],
        layout: Layout,
        options: BuildOptions,
        *,
        top_k: int = 0,
        temperature: float = 1.0,
        outcomes: int | None = None,
    ) -> None:
        """Collective over the role; `top_k` and `temperature` are for taps of the k likeliest tokens, of which the
        student knows those of number below `outcomes` (None: all of the teacher's)."""
        self.model = build_decoder(shape, layers, layout, options)
        self.model.requires_grad_(False).eval()
        load_checkpoint(checkpoint, self.model, None)
        self.top_k, self.temperature = top_k, temperature
        self.outcomes = shape.num_outcomes if outcomes is None else min(outcomes, shape.num_outcomes)
        self.group = parallel_state.get_tensor_model_parallel_group() if layout.tensor > 1 else None
        self.model.head = self._head
        self._taps: frozenset[Tap] = frozenset()
        self._capture: Capture | None = None
        self._found: dict[Tap, Tensor] = {}

    def tables(self) -> dict[Tap, Tensor]:
        """The embedding table on the first stage, the output matrix on the last, each [vocab of this rank, hidden]."""
        model, found = self.model, {}
        if model.pre_process:
            found[Tap("embedding")] = model.embedding.word_embeddings.weight
        if model.post_process:
            tied = model.share_embeddings_and_output_weights
            found[Tap("output_weight")] = (
                model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
            )
        return {tap: table.detach() for tap, table in found.items()}

    @torch.no_grad()
    def show(self, batch: Batch, taps: Collection[Tap], received: Tensor | None = None) -> tuple[Tensor, dict]:
        """The hidden states that this stage hands on, and what is tapped of it.

        Args:
            batch: a micro-batch.
            taps: what to show; other stages show their own.
            received: hidden states of the stage before, [seq (of this rank), batch, hidden]; None on the first.
        """
        if self._capture is None or frozenset(taps) != self._taps:
            if self._capture is not None:
                self._capture.close()
            self._taps = frozenset(taps)
            self._capture = Capture(self.model, [tap for tap in taps if tap.layer is not None], self._keep)
        self._found = {}
        self.model.set_input_tensor([received])
        hidden = self.model(batch.tokens, batch.position_ids, None)
        found, self._found = self._found, {}
        return hidden, found

    def _keep(self, layer: int, found: dict[Tap, Tensor], hidden: Tensor) -> Tensor:
        self._found |= found
        return hidden

    def _head(self, hidden: Tensor) -> Tensor:
        kinds = {tap.kind for tap in self._taps}
        if "final_hidden" in kinds:
            self._found[Tap("final_hidden")] = hidden
        if kinds & {"logits", "tail"}:
            weight = self.tables()[Tap("output_weight")]
            logits, _ = self.model.output_layer(hidden, weight=weight)
            if "logits" in kinds:
                self._found[Tap("logits")] = logits
            if "tail" in kinds:
                known = hide_rows(logits.flatten(0, 1).clone(), self.outcomes, self.group)
                top = largest(known, self.top_k, self.temperature, self.group)
                lead = logits.shape[:2]
                self._found[Tap("top_log_probs")] = top.log_probs.view(*lead, -1)
                self._found[Tap("top_indices")] = top.indices.to(torch.int32).view(*lead, -1)
                self._found[Tap("tail")] = top.log_tail.view(*lead, 1)
        return hidden
