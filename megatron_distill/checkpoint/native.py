"""Sharded checkpoints by megatron-core's dist_checkpointing: any layout writes them, any other loads them.

Tensors are stored under the original indices of their layers, so a model that has fewer layers than the checkpoint
loads the ones it has: removing layers from a run is resuming it with fewer. saving.py writes them, folder.py says
where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.strategies.common import TorchCommonLoadStrategy
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreLoadPlanner,
    TorchDistLoadShardedStrategy,
    _replace_sharded_keys_with_state_dict_keys,
    _replace_state_dict_keys_with_sharded_keys,
    _restore_dict_types,
    _unwrap_pyt_sharded_tensor,
    mcore_to_pyt_state_dict,
)
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException, of all things

from megatron_distill.config.error import ConfigError
from megatron_distill.models.build import Decoder
from megatron_distill.optim.sharded_state import (
    load_optimizer_state,
    set_optimizer_steps,
    sharded_optimizer_state,
)

from .manifest import Manifest, read_manifest
from .metadata_file import SafeReader, check_backend, read_steps


def load_checkpoint(folder: Path, model: Decoder, optimizer: DistributedOptimizer | None) -> Manifest:
    """Fill the model, and the optimizer if given, from a checkpoint of any layout. Collective over the role.

    Nothing that the checkpoint holds is executed.

    Raises:
        ConfigError: it is damaged, or lacks tensors of this model.
    """
    manifest = read_manifest(folder)
    check_backend(folder)
    steps = read_steps(folder) if optimizer is not None else 0.0
    state = sharded_state(model, optimizer, loading=True)
    try:
        loaded = dist_checkpointing.load(state, str(folder), _SafeTensors(), _NoObjects())
    except (Exception, CheckpointException) as error:  # what megatron-core and torch make of bytes that are not theirs
        raise ConfigError(f"checkpoint {folder} cannot be loaded: {_cause(error)}") from error
    incompatible = model.load_state_dict(loaded["model"], strict=False)
    missing = [name for name in incompatible.missing_keys if not name.endswith("_extra_state")]
    assert not missing and not incompatible.unexpected_keys, incompatible
    if optimizer is not None:
        load_optimizer_state(optimizer, model.sharded_state_dict(), loaded.get("optimizer", {}))
        set_optimizer_steps(optimizer, steps)
    return manifest


def sharded_state(model: Decoder, optimizer: DistributedOptimizer | None, *, loading: bool) -> dict[str, Any]:
    """All tensors of this rank as megatron-core's distributed checkpoint is to save, or to load into, them.

    Collective over data-parallel ranks when saving.
    """
    state: dict[str, Any] = {"model": model.sharded_state_dict()}
    tensors = sharded_optimizer_state(optimizer, state["model"], loading=loading) if optimizer is not None else None
    if tensors:  # a pipeline stage whose layers are all frozen has none, and megatron-core warns of empty dictionaries
        state["optimizer"] = tensors
    return state


class _SafeTensors(TorchDistLoadShardedStrategy):
    """megatron-core's way to load tensors, through a reader that unpickles nothing."""

    def load(self, sharded_state_dict: Any, checkpoint_dir: Path) -> Any:
        """The tensors that `sharded_state_dict` describes."""
        tensors = [value for value in nested_values(sharded_state_dict) if isinstance(value, ShardedTensor)]
        same_shape = [tensor for tensor in tensors if not tensor.allow_shape_mismatch]
        other_shape = {tensor.key: tensor for tensor in tensors if tensor.allow_shape_mismatch}
        flat, mapping, renamed = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict)
        state: Any = mcore_to_pyt_state_dict(flat, True)
        planner = MCoreLoadPlanner(
            shapes_validation_sharded_tensors=same_shape, allow_shape_mismatch_sharded_tensors=other_shape
        )
        checkpoint.load(state, storage_reader=SafeReader(Path(checkpoint_dir)), planner=planner)
        state = {key: _unwrap_pyt_sharded_tensor(value) for key, value in state.items()}
        state = _replace_sharded_keys_with_state_dict_keys(state, mapping, renamed)
        _restore_dict_types(state, sharded_state_dict)
        return state


class _NoObjects(TorchCommonLoadStrategy):
    """`common.pt` holds one number, which `read_steps` reads."""

    def load_common(self, checkpoint_dir: Any) -> dict[str, Any]:
        """Nothing."""
        return {}


def _cause(error: BaseException) -> str:
    """The first line of what went wrong on some rank."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
