"""Sharded checkpoints by megatron-core's dist_checkpointing: any layout writes them, any other loads them.

Tensors are stored under the original indices of their layers, so a model that has fewer layers than the checkpoint
loads the ones it has: removing layers from a run is resuming it with fewer. saving.py writes them, folder.py says
where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron_distill.models.build import Decoder
from megatron_distill.optim.sharded_state import (
    load_optimizer_state,
    set_optimizer_steps,
    sharded_optimizer_state,
)

from .manifest import Manifest, read_manifest


def load_checkpoint(folder: Path, model: Decoder, optimizer: DistributedOptimizer | None) -> Manifest:
    """Fill the model, and the optimizer if given, from a checkpoint of any layout. Collective over the role."""
    manifest = read_manifest(folder)
    state = sharded_state(model, optimizer, loading=True)
    loaded = dist_checkpointing.load(state, str(folder))
    incompatible = model.load_state_dict(loaded["model"], strict=False)
    missing = [name for name in incompatible.missing_keys if not name.endswith("_extra_state")]
    assert not missing and not incompatible.unexpected_keys, incompatible
    if optimizer is not None:
        # Absent on a pipeline stage whose layers are all frozen: megatron-core drops dictionaries that are empty.
        load_optimizer_state(optimizer, model.sharded_state_dict(), loaded.get("optimizer", {}))
        set_optimizer_steps(optimizer, dist_checkpointing.load_common_state_dict(str(folder))["steps"])
    return manifest


def sharded_state(model: Decoder, optimizer: DistributedOptimizer | None, *, loading: bool) -> dict[str, Any]:
    """All tensors of this rank as megatron-core's distributed checkpoint is to save, or to load into, them.

    Collective over data-parallel ranks when saving.
    """
    state: dict[str, Any] = {"model": model.sharded_state_dict()}
    if optimizer is not None:
        state["optimizer"] = sharded_optimizer_state(optimizer, state["model"], loading=loading)
    return state
