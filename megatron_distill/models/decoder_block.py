"""The sequential block of Llama, Mistral, Qwen, GPT-2, OPT and GPT-NeoX as a megatron-core layer.

    h = h + Attention(Norm(h))
    h = h + MLP(Norm(h))       or both halves from the same h, as in GPT-NeoX

Queries, keys and values are one product, grouped by key head: group i owns rows [q of its queries | k_i | v_i]. A
gated feed-forward's first product is cut into `mlp_parts` groups of [gate_i | up_i] rows. So, as in palm_block.py, a
tensor-parallel rank's part of each matrix is one contiguous slice at every tensor-parallel size.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_layer import BaseTransformerLayer
from torch import Tensor

from megatron_distill.config.block import Block

from .attention import CausalAttention
from .kv_cache import LayerCache
from .norms import LayerNorm, RMSNorm
from .rotary import rotate

ACTIVATIONS: dict[str, Any] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


def mlp_parts(num_query_groups: int, ffn_hidden_size: int) -> int:
    """Groups of gate and up rows: a number that every possible tensor-parallel size divides."""
    return math.gcd(num_query_groups, ffn_hidden_size)


class DecoderBlock(MegatronModule, BaseTransformerLayer):
    """One layer as `block` describes it."""

    def __init__(
        self,
        config: Any,
        submodules: Any = None,
        layer_number: int = 1,
        *,
        index: int,
        block: Block,
        attention_backend: str,
        pg_collection: ProcessGroupCollection | None = None,
        vp_stage: int | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__(config=config)
        tp_group = (pg_collection or ProcessGroupCollection.use_mpu_process_groups()).tp
        self.layer_number, self.block = layer_number, block
        self.index = index
        """Number of this layer in the model that was pretrained, 0-based; pruning does not change it."""
        hidden, heads, ffn, eps = (
            config.hidden_size,
            config.num_attention_heads,
            config.ffn_hidden_size,
            config.layernorm_epsilon,
        )
        tp, width, groups = tp_group.size(), block.head_dim, block.num_query_groups
        self.groups, self.parts = groups // tp, mlp_parts(groups, ffn) // tp
        self.split = [heads // groups * width, width, width]
        norm = RMSNorm if block.norm == "rmsnorm" else LayerNorm
        column = partial(
            ColumnParallelLinear,
            config=config,
            init_method=config.init_method,
            gather_output=False,
            skip_bias_add=False,
            tp_group=tp_group,
        )
        row = partial(
            RowParallelLinear,
            config=config,
            init_method=config.output_layer_init_method,
            input_is_parallel=True,
            skip_bias_add=False,
            tp_group=tp_group,
        )
        self.attention_norm = norm(config, hidden, eps)
        self.linear_qkv = column(hidden, groups * sum(self.split), bias=block.qkv_bias)
        self.linear_proj = row(heads * width, hidden, bias=block.proj_bias)
        self.mlp_norm = norm(config, hidden, eps)
        self.linear_fc1 = column(hidden, ffn * (2 if block.gated else 1), bias=block.mlp_bias)
        self.linear_fc2 = row(ffn, hidden, bias=block.mlp_bias)
        if block.qk_norm:
            # megatron-core sums the gradients of parameters with these names over the tensor-parallel ranks.
            self.q_layernorm = norm(config, width, eps)
            self.k_layernorm = norm(config, width, eps)
        self.attention = CausalAttention(config, attention_backend, layer_number)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        context: Tensor | None = None,
        rotary_pos_emb: Tensor | None = None,
        cache: LayerCache | None = None,
        **ignored: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[seq, batch, hidden] to the same; with sequence parallelism seq is this rank's part of the sequence.

        With a `cache`, the tokens follow those that it holds.
        """
        attended = hidden_states + self.attend(self.attention_norm(hidden_states), rotary_pos_emb, cache)
        source = hidden_states if self.block.parallel_residual else attended
        return attended + self.feed_forward(self.mlp_norm(source)), context

    def attend(self, x: Tensor, rotary_pos_emb: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        """Self-attention over normalised hidden states, [seq, batch, hidden] to the same."""
        z, _ = self.linear_qkv(x)
        seq, batch, _ = z.shape
        q, k, v = z.view(seq, batch, self.groups, -1).split(self.split, dim=-1)
        q = q.reshape(seq, batch, -1, self.block.head_dim)
        if self.block.qk_norm:
            q, k = self.q_layernorm(q), self.k_layernorm(k)
        if rotary_pos_emb is not None:
            q, k = (self.turn(y, rotary_pos_emb) for y in (q, k))
        out, _ = self.linear_proj(self.attention(q, k, v, cache).reshape(seq, batch, -1))
        return out

    def turn(self, x: Tensor, table: Tensor) -> Tensor:
        """Queries or keys [seq, batch, heads, head dim] with their first `rotary_dim` dimensions rotated."""
        width = self.block.rotary_dim
        if width == x.shape[-1]:
            return rotate(x, table)
        return torch.cat((rotate(x[..., :width], table), x[..., width:]), dim=-1)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward on normalised hidden states, [seq, batch, hidden] to the same."""
        z, _ = self.linear_fc1(x)
        activation = ACTIVATIONS[self.block.activation]
        if self.block.gated:
            gate, up = z.view(*z.shape[:2], self.parts, -1).chunk(2, dim=-1)
            z = (activation(gate) * up).flatten(-2)
        else:
            z = activation(z)
        out, _ = self.linear_fc2(z)
        return out
