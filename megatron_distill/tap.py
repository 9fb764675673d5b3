"""The name of a tensor inside a decoder, the word that losses, models and teachers share."""

from __future__ import annotations

from typing import NamedTuple


class Tap(NamedTuple):
    """A tensor inside a model that a loss needs."""

    kind: str
    """queries, keys, values: [seq, batch, heads of this rank, head dim], after norms and rotation; attention_output:
    the same of the heads' outputs, before the output projection; hidden: the residual stream after a layer, [seq (of
    this rank, with sequence parallelism), batch, hidden]; final_hidden: [seq, batch, hidden] after the last norm;
    embedding, output_weight: the tables, [vocab of this rank, hidden]; logits: [seq, batch, vocab of this rank];
    top_log_probs, top_indices: [seq, batch, k], of the k likeliest tokens; tail: [seq, batch, 1], log-probability of
    all others together."""
    layer: int | None = None
    """Number of the layer in the model that was pretrained, which pruning does not change."""
