"""Optimizer state as whole tensors named after their parameters: loads on any layout, before or after pruning.

megatron-core's own formats know Adam's two moments only, or fix the layout. Here each state tensor (fp32 weight,
`exp_avg`, ...) is stored under `optimizer.<state>.<parameter>` with the parameter's own sharding, so whatever layout
can load a parameter can load its state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

MASTER = "fp32_param"
"""Name under which the fp32 master copy of a bf16 weight is stored."""


def sharded_optimizer_state(
    optimizer: DistributedOptimizer, model_state: dict[str, Any], *, loading: bool
) -> dict[str, Any]:
    """What megatron-core's distributed checkpoint is to save, or to load into, for this rank.

    `model_state` is the model's `sharded_state_dict`. Collective over data-parallel ranks when saving: the parts of
    each tensor are summed on the first of them, which writes it. Whole tensors lie on the CPU, where the optimizer's
    parts leave them room; one at a time is on the device.
    """
    if optimizer.is_stub_optimizer:
        return {}
    sharding_of = {id(sharded.data): (name, sharded) for name, sharded in model_state.items()}
    group = optimizer.data_parallel_group
    state: dict[str, Any] = {}
    for parameter, start, end, tensors in _shards(optimizer):
        name, sharding = sharding_of[id(parameter)]
        for key, shard in tensors.items():
            if loading:
                whole = torch.zeros(parameter.numel(), dtype=torch.float32)
            else:
                whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
                if shard is not None:
                    whole[start:end] = shard
                dist.reduce(whole, dist.get_global_rank(group, 0), group=group)
                # megatron-core looks at the shape only of what another rank writes.
                whole = whole.to("cpu" if group.rank() == 0 else "meta")
            state[f"{key}.{name}"] = replace(
                sharding,
                key=f"optimizer.{key}.{sharding.key}",
                data=whole.view(parameter.shape),
                dtype=torch.float32,
            )
    return state


def load_optimizer_state(
    optimizer: DistributedOptimizer, model_state: dict[str, Any], loaded: dict[str, Tensor]
) -> None:
    """Copy this rank's parts out of whole tensors, as `dist_checkpointing.load` filled them."""
    if optimizer.is_stub_optimizer:
        return
    name_of = {id(sharded.data): name for name, sharded in model_state.items()}
    with torch.no_grad():
        for parameter, start, end, tensors in _shards(optimizer):
            for key, shard in tensors.items():
                if shard is not None:
                    shard.copy_(loaded[f"{key}.{name_of[id(parameter)]}"].reshape(-1)[start:end])


def optimizer_steps(optimizer: DistributedOptimizer) -> float:
    """AdamW's count of updates, which its bias correction needs; 0 for Lion."""
    if optimizer.is_stub_optimizer:
        return 0.0
    return next((float(s["step"]) for s in optimizer.optimizer.state.values() if "step" in s), 0.0)


def set_optimizer_steps(optimizer: DistributedOptimizer, steps: float) -> None:
    """Restore what `optimizer_steps` gave."""
    if optimizer.is_stub_optimizer:
        return
    for state in optimizer.optimizer.state.values():
        if "step" in state:
            state["step"].fill_(steps)


def _shards(
    optimizer: DistributedOptimizer,
) -> Iterator[tuple[torch.nn.Parameter, int, int, dict[str, Tensor | None]]]:
    """Every parameter of this rank's buffers, with the range [start, end) of it that this data-parallel rank updates
    and the state of that range (None for each where it owns nothing of the parameter)."""
    names = _state_names(optimizer)
    for buffer, ranges_of_dtype in zip(optimizer.buffers, optimizer.gbuf_ranges, strict=True):
        owned: dict[torch.nn.Parameter, Any] = {}
        for bucket in next(iter(ranges_of_dtype.values())):
            owned.update(bucket["param_map"])
        # The same order on every rank, because saving is collective.
        for parameter in buffer.param_index_map:
            if parameter not in owned:
                yield parameter, 0, 0, dict.fromkeys(names)
                continue
            span = owned[parameter]["param"]
            group, position = optimizer.model_param_group_index_map[parameter]
            main = optimizer.optimizer.param_groups[group]["params"][position]
            assert main.numel() == span.size, "megatron-core reorders a group whose parameters differ in dtype"
            state = optimizer.optimizer.state[main]
            tensors = {name: main if name == MASTER else state[name] for name in names}
            yield parameter, span.start, span.end, tensors


def _state_names(optimizer: DistributedOptimizer) -> list[str]:
    """Names of the state tensors; the master weight only where it is not the model's own."""
    inner = optimizer.optimizer
    moments = ["exp_avg", "exp_avg_sq"] if _has_second_moment(inner) else ["exp_avg"]
    return ([MASTER] if optimizer.config.bf16 else []) + moments


def _has_second_moment(inner: torch.optim.Optimizer) -> bool:
    from .lion import Lion

    return not isinstance(inner, Lion)
