"""Hands over tensors inside a decoder as it runs: forward hooks, nothing in the layers knows of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from megatron_distill.tap import Tap

from .build import Decoder

ATTENTION = ("queries", "keys", "values", "attention_output")

OnLayer = Callable[[int, dict[Tap, Tensor], Tensor], Tensor]
"""From a layer's number in the pretrained model, its tapped tensors and the hidden state after it [seq (of this rank,
with sequence parallelism), batch, hidden] to the hidden state that the next layer gets."""


class Capture:
    """Calls `on_layer` after each layer of this stage that has one of `taps`, until `close`."""

    def __init__(self, model: Decoder, taps: Collection[Tap], on_layer: OnLayer) -> None:
        self._taps, self._on_layer = frozenset(taps), on_layer
        self._attention: dict[Tap, Tensor] = {}
        self._handles = []
        for layer in model.decoder.layers:
            here = {tap.kind for tap in self._taps if tap.layer == layer.index}
            if here & set(ATTENTION):
                self._handles.append(layer.attention.register_forward_hook(self._after_attention(layer.index)))
            if here:
                self._handles.append(layer.register_forward_hook(self._after_layer(layer.index)))

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _after_attention(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found = zip(ATTENTION, (*inputs[:3], output), strict=True)  # a cache may follow
            self._attention = {Tap(kind, index): x for kind, x in found if Tap(kind, index) in self._taps}

        return hook

    def _after_layer(self, index: int) -> Callable[[nn.Module, Any, tuple[Tensor, Any]], tuple[Tensor, Any]]:
        def hook(module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
            found, self._attention = self._attention, {}
            hidden, context = output
            if Tap("hidden", index) in self._taps:
                found[Tap("hidden", index)] = hidden
            return self._on_layer(index, found, hidden), context

        return hook
