"""Gradients and updates over data-parallel ranks: megatron-core's DDP and DistributedOptimizer around ours."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig as CoreOptimizerConfig
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import nn

from megatron_distill.config.sections import OptimizerConfig, ParallelConfig
from megatron_distill.parallel import device

from .lion import Lion


def wrap_ddp(model: Any, config: ParallelConfig) -> DistributedDataParallel:
    """The model with its weights and fp32 gradients in flat buffers that are reduced over data-parallel ranks.

    Overlapping communication with computation needs streams, so it is left out on the CPU.
    """
    overlap = device.is_cuda()
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=config.overlap_grad_reduce and overlap,
        overlap_param_gather=config.overlap_param_gather and config.overlap_grad_reduce and overlap,
    )
    ddp = DistributedDataParallel(model.config, ddp_config, model)
    core = model.config
    core.finalize_model_grads_func = finalize_model_grads
    core.no_sync_func = ddp.no_sync
    if ddp_config.overlap_param_gather:
        core.param_sync_func = ddp.start_param_sync
    return ddp


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Trainable parameters that decay, and those that do not: biases, norms and (unless asked for) embeddings.

    The papers exempt biases and norms; exempting the embedding is what their team's code does.
    """
    decaying: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_table = "embedding" in name or "output_layer" in name
        decays = parameter.dim() > 1 and (config.decay_embeddings or not is_table)
        (decaying if decays else exempt).append(parameter)
    pairs = ((decaying, config.weight_decay), (exempt, 0.0))
    return [
        {"params": params, "weight_decay": decay, "initial_lr": config.lr, "is_expert_parallel": False}
        for params, decay in pairs
        if params
    ]


def build_optimizer(ddp: DistributedDataParallel, config: OptimizerConfig) -> DistributedOptimizer:
    """The distributed optimizer: fp32 master weights and optimizer state, split over the data-parallel ranks.

    Collective over all ranks of the role; a pipeline stage without trainable parameters takes part with nothing.
    """
    groups = parameter_groups(ddp.module, config)
    inner = _inner_optimizer(groups, config) if groups else None
    core_config = CoreOptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        weight_decay=config.weight_decay,
        clip_grad=config.clip_grad,
        bf16=ddp.config.bf16,
        params_dtype=ddp.config.params_dtype,
        use_distributed_optimizer=True,
        overlap_param_gather=ddp.ddp_config.overlap_param_gather,
    )
    optimizer = DistributedOptimizer(
        inner,
        core_config,
        grad_scaler=None,
        init_state_fn=None,
        model_chunks=[ddp],
        per_model_buffers={0: ddp.buffers},
        data_parallel_group=parallel_state.get_data_parallel_group(with_context_parallel=True),
        data_parallel_group_gloo=None,
        data_parallel_group_idx=torch.distributed.get_rank(parallel_state.get_model_parallel_group()),
        distributed_optimizer_instance_id=0,
    )
    optimizer.grad_stats_parallel_group = parallel_state.get_intra_distributed_optimizer_instance_group()
    optimizer.tp_group = parallel_state.get_tensor_model_parallel_group()
    if inner is not None:
        _make_state(inner)
    return optimizer


def _inner_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    if config.optimizer == "lion":
        return Lion(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, decay=config.decay_semantics)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.adam_eps, weight_decay=config.weight_decay)


def _make_state(inner: torch.optim.Optimizer) -> None:
    """All state from the first step on, so that a checkpoint before it has the same tensors as one after it."""
    names = ("exp_avg",) if isinstance(inner, Lion) else ("exp_avg", "exp_avg_sq")
    for group in inner.param_groups:
        for parameter in group["params"]:
            inner.state[parameter] = {name: torch.zeros_like(parameter) for name in names}
            if not isinstance(inner, Lion):
                inner.state[parameter]["step"] = torch.tensor(0.0)


def set_learning_rate(optimizer: DistributedOptimizer, lr: float) -> None:
    """Use `lr` from the next step on."""
    if optimizer.is_stub_optimizer:
        return
    for group in optimizer.param_groups:
        group["lr"] = lr
