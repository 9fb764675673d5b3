"""Causal attention without a materialised score matrix: PyTorch's, flash-attn's or Transformer Engine's kernels."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel import device

from .kv_cache import LayerCache

PACKAGES = {"te": "transformer_engine", "flash": "flash_attn"}
"""What each backend but sdpa needs; all but sdpa need a GPU."""


def choose_backend(asked: str, precision: str = "auto") -> str:
    """The backend that `--attention-backend` means on this machine and in this `--precision`: te, flash or sdpa.

    Raises:
        ConfigError: the backend asked for cannot run here.
    """
    half = device.dtype(precision) is torch.bfloat16
    usable = [name for name, package in PACKAGES.items() if device.is_cuda() and half and _is_installed(package)]
    if asked == "auto":
        return (["flash"] if "flash" in usable else usable + ["sdpa"])[0]
    if asked != "sdpa" and asked not in usable:
        missing = f"the package {PACKAGES[asked]}" if half else "--precision bf16"
        reason = missing if device.is_cuda() else "a GPU"
        raise ConfigError(f"--attention-backend {asked} needs {reason}, which is not here; use sdpa or auto")
    return asked


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class CausalAttention(nn.Module):
    """softmax(q k^T / sqrt(head dim) + causal mask) v for the heads of this rank."""

    def __init__(self, config: Any, backend: str, layer_number: int) -> None:
        super().__init__()
        self.backend = backend
        if backend == "te":
            from megatron.core.extensions.transformer_engine import TEDotProductAttention
            from megatron.core.transformer.enums import AttnMaskType

            self.mask_type = AttnMaskType.causal
            self.kernel = TEDotProductAttention(config, layer_number, self.mask_type, "self")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, cache: LayerCache | None = None) -> Tensor:
        """[seq, batch, heads, head dim] three times to the same shape once; `k` and `v` may have fewer heads.

        With a `cache`, keys and values are added to it, and the queries see all that it holds.
        """
        if cache is not None and not cache.append(k, v):
            return cache.attend(q)
        if self.backend == "te":
            return self.kernel(q, k, v, attention_mask=None, attn_mask_type=self.mask_type).view(q.shape)
        if self.backend == "flash":
            from flash_attn import flash_attn_func

            out = flash_attn_func(*(x.transpose(0, 1) for x in (q, k, v)), causal=True)
            return out.transpose(0, 1)
        if k.shape[2] != q.shape[2]:
            # Not enable_gqa: where a kernel lacks it, PyTorch falls back to a materialised matrix of scores.
            k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
        q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / math.sqrt(q.shape[-1]))
        return out.permute(2, 0, 1, 3)
