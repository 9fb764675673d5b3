"""LayerNorms that know their place in a tensor- and sequence-parallel model."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """LayerNorm over the last dimension, bias only where the model has biases.

    megatron-core's torch LayerNorm refuses sequence parallelism; this one marks its weights, so that their gradients
    are summed over the tensor-parallel ranks.
    """

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=_device()))
        self.bias = (
            nn.Parameter(torch.zeros(hidden_size, dtype=config.params_dtype, device=_device()))
            if config.add_bias_linear
            else None
        )
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """`x` normalised; [..., hidden] to [..., hidden], statistics in fp32."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) times a weight, over the last dimension (arXiv:1910.07467)."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=_device()))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """`x` normalised; [..., hidden] to [..., hidden], statistics in fp32."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class QueryKeyNorm(nn.Module):
    """QK-LayerNorm over the full width of all heads, as in the paper's models (weight and bias, heads split over TP).

    Under tensor parallelism the statistics of queries and keys are summed over the ranks in one all-reduce of
    4 x [seq, batch] numbers, and the same in the backward pass.
    """

    q_weight: nn.Parameter
    q_bias: nn.Parameter
    k_weight: nn.Parameter
    k_bias: nn.Parameter

    def __init__(self, config: Any, heads: int, head_dim: int, eps: float, tp_group: dist.ProcessGroup) -> None:
        super().__init__()
        self.eps, self.tp_group, self.width = eps, tp_group, heads * head_dim * tp_group.size()
        options = {"dtype": config.params_dtype, "device": _device()}
        for name in ("q", "k"):
            weight = nn.Parameter(torch.ones(heads * head_dim, **options))
            bias = nn.Parameter(torch.zeros(heads * head_dim, **options))
            for parameter in (weight, bias):
                parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
                parameter.partition_dim, parameter.partition_stride = 0, 1  # type: ignore[attr-defined]
            self.register_parameter(f"{name}_weight", weight)
            self.register_parameter(f"{name}_bias", bias)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised queries and keys, each [seq, batch, heads of this rank, head dim]. Collective over TP."""
        shape = q.shape
        both = torch.stack((q.flatten(-2), k.flatten(-2))).float()
        weight = torch.stack((self.q_weight, self.k_weight))[:, None, None]
        bias = torch.stack((self.q_bias, self.k_bias))[:, None, None]
        normalised = _NormaliseOverRanks.apply(both, self.width, self.eps, self.tp_group)
        out = (normalised * weight + bias).to(q.dtype)
        return out[0].view(shape), out[1].view(shape)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: Any = None) -> dict[str, Any]:
        """How this rank's slices lie in the whole vectors, for megatron-core's distributed checkpoints."""
        state = self.state_dict(prefix="", keep_vars=True)
        axes = dict.fromkeys(state, 0)
        # megatron-core looks up groups only if both are absent; without this one every replica claims to be the first.
        replicas = parallel_state.get_data_parallel_group(with_context_parallel=True)
        return make_sharded_tensors_for_checkpoint(
            state, prefix, axes, sharded_offsets, tp_group=self.tp_group, dp_cp_group=replicas
        )


class _NormaliseOverRanks(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) over the last dimension of a tensor that is split over ranks there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int, eps: float, group: dist.ProcessGroup) -> Tensor:
        mean = _sum_over_ranks(x.sum(-1), group) / width
        # A second reduction instead of E[x^2] - mean^2: no cancellation.
        centred = x - mean.unsqueeze(-1)
        variance = _sum_over_ranks(centred.square().sum(-1), group) / width
        inverse = torch.rsqrt(variance + eps).unsqueeze(-1)
        out = centred * inverse
        ctx.save_for_backward(out, inverse)
        ctx.width, ctx.group = width, group
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        out, inverse = ctx.saved_tensors
        sums = torch.stack((grad.sum(-1), (grad * out).sum(-1)))
        mean_grad, mean_product = (_sum_over_ranks(sums, ctx.group) / ctx.width).unsqueeze(-1)
        return (grad - mean_grad - out * mean_product) * inverse, None, None, None


def _sum_over_ranks(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    if group.size() > 1:
        dist.all_reduce(values, group=group)
    return values


def _device() -> Any:
    return torch.cuda.current_device()
