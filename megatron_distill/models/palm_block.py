"""PaLM's parallel block (arXiv:2204.02311, section 2; arXiv:2305.14864, section 3) as a megatron-core layer.

    u = LayerNorm(h)
    q, k, v, up, gate = u W_in          one column-parallel product, hidden -> 3 hidden + 2 ffn
    o = Attention(RoPE(Norm(q)), RoPE(Norm(k)), v)
    h = h + [o | up * SiLU(gate)] W_out one row-parallel product, hidden + ffn -> hidden

One all-reduce forward and one backward a layer; with sequence parallelism, one all-gather and one reduce-scatter.

The features of both projections are grouped by head: head i owns rows [q_i | k_i | v_i | up_i | gate_i] of W_in and
columns [o_i | m_i] of W_out, where up, gate and m are cut into as many parts as there are heads. So a tensor-parallel
rank's part of either matrix is one contiguous slice at every tensor-parallel size: checkpoints, initialisation and
resharding need to know nothing of what is fused inside.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_layer import BaseTransformerLayer
from torch import Tensor

from .attention import CausalAttention
from .kv_cache import LayerCache
from .norms import LayerNorm, QueryKeyNorm
from .rotary import rotate


class PalmBlock(MegatronModule, BaseTransformerLayer):
    """One layer; `config.add_bias_linear` adds biases, `config.qk_layernorm` chooses per-head or full-width norms."""

    def __init__(
        self,
        config: Any,
        submodules: Any = None,
        layer_number: int = 1,
        *,
        index: int,
        attention_backend: str,
        pg_collection: ProcessGroupCollection | None = None,
        vp_stage: int | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__(config=config)
        groups = pg_collection or ProcessGroupCollection.use_mpu_process_groups()
        self.tp_group = groups.tp
        self.layer_number = layer_number
        self.index = index
        """Number of this layer in the model that was pretrained, 0-based; pruning does not change it."""
        heads, head_dim, ffn = config.num_attention_heads, config.kv_channels, config.ffn_hidden_size
        self.heads = heads // self.tp_group.size()
        self.split = [head_dim] * 3 + [ffn // heads] * 2
        common = {"config": config, "bias": config.add_bias_linear, "tp_group": self.tp_group, "skip_bias_add": False}
        self.norm = LayerNorm(config, config.hidden_size, config.layernorm_epsilon)
        self.linear_in = ColumnParallelLinear(
            config.hidden_size,
            heads * sum(self.split),
            init_method=config.init_method,
            gather_output=False,
            **common,
        )
        self.linear_out = RowParallelLinear(
            heads * head_dim + ffn,
            config.hidden_size,
            init_method=config.output_layer_init_method,
            input_is_parallel=True,
            **common,
        )
        if config.qk_layernorm:
            # megatron-core sums the gradients of parameters with these names over the tensor-parallel ranks.
            self.q_layernorm = LayerNorm(config, head_dim, config.layernorm_epsilon)
            self.k_layernorm = LayerNorm(config, head_dim, config.layernorm_epsilon)
        else:
            self.qk_norm = QueryKeyNorm(config, self.heads, head_dim, config.layernorm_epsilon, self.tp_group)
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
        z, _ = self.linear_in(self.norm(hidden_states))
        seq, batch, _ = z.shape
        q, k, v, up, gate = z.view(seq, batch, self.heads, -1).split(self.split, dim=-1)
        q, k = self.normalise(q, k)
        assert rotary_pos_emb is not None
        out = self.attention(rotate(q, rotary_pos_emb), rotate(k, rotary_pos_emb), v, cache)
        mixed = torch.cat((out, up * F.silu(gate)), dim=-1).view(seq, batch, -1)
        update, _ = self.linear_out(mixed)
        return hidden_states + update, context

    def normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys after QK-LayerNorm, [seq, batch, heads, head dim]."""
        if self.config.qk_layernorm:
            return self.q_layernorm(q), self.k_layernorm(k)
        return self.qk_norm(q, k)
