"""PaLM (arXiv:2204.02311) with biases everywhere and QK-LayerNorm over the full width (arXiv:2305.14864, section 3).

    u = LayerNorm(h)
    q, k, v, up, gate = u W_in + b_in
    o = Attention(RoPE(LayerNorm(q)), RoPE(LayerNorm(k)), v)
    h = h + [o | up * SiLU(gate)] W_out + b_out

The features of both projections are grouped by head: head i owns rows [q_i | k_i | v_i | up_i | gate_i] of W_in and
columns [o_i | m_i] of W_out. The output matrix is the embedding table.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_palm_paper import PalmPaperConfig

# transformers 5.24 calls the key-value cache `cache`, in arguments and results; earlier ones say `past_key_values`.
CACHE_FIELD = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class PalmPaperBlock(nn.Module):
    """One layer."""

    def __init__(self, config: PalmPaperConfig, layer_idx: int) -> None:
        super().__init__()
        hidden, heads, ffn = config.hidden_size, config.num_attention_heads, config.intermediate_size
        self.layer_idx, self.heads = layer_idx, heads
        self.sizes = [hidden // heads] * 3 + [ffn // heads] * 2
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.linear_in = nn.Linear(hidden, 3 * hidden + 2 * ffn)
        self.q_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.k_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.linear_out = nn.Linear(hidden + ffn, hidden)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """[batch, seq, hidden] to the same; cosines and sines are [batch, 1, seq, head_dim / 2]."""
        batch, seq, _ = hidden.shape
        z = self.linear_in(self.norm(hidden)).view(batch, seq, self.heads, -1)
        q, k, v, up, gate = z.split(self.sizes, dim=-1)
        q = self.q_norm(q.flatten(-2)).view_as(q).transpose(1, 2)
        k = self.k_norm(k.flatten(-2)).view_as(k).transpose(1, 2)
        q, k, v = rotate(q, cos, sin), rotate(k, cos, sin), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        causal = mask is None and seq > 1
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)
        mixed = torch.cat((out, up * F.silu(gate)), dim=-1).reshape(batch, seq, -1)
        return hidden + self.linear_out(mixed)


class PalmPaperModel(nn.Module):
    """Embedding, layers, last norm."""

    def __init__(self, config: PalmPaperConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(PalmPaperBlock(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class PalmPaperPreTrainedModel(PreTrainedModel):
    """What transformers must know."""

    config_class = PalmPaperConfig
    base_model_prefix = "model"
    _no_split_modules = ["PalmPaperBlock"]  # noqa: RUF012
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)


class PalmPaperForCausalLM(PalmPaperPreTrainedModel, GenerationMixin):
    """Next-token logits, with a key-value cache for generation."""

    def __init__(self, config: PalmPaperConfig) -> None:
        super().__init__(config)
        self.model = PalmPaperModel(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table, which is also the output matrix."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table."""
        self.model.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        past_key_values: Any = None,
        return_dict: bool | None = True,
    ) -> Any:
        """[batch, seq] ids to [batch, seq, vocabulary] logits; with labels also the mean loss of the next token.

        `cache` and `past_key_values` are two names of one argument. No other arguments are taken: one that was ignored
        could change what the caller means to compute.
        """
        if cache is not None and past_key_values is not None:
            raise ValueError("give the key-value cache as `cache` or as `past_key_values`, not as both")
        cache = past_key_values if cache is None else cache
        hidden = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        wants_cache = self.config.use_cache if use_cache is None else use_cache
        if wants_cache and cache is None and not self.training:
            cache = DynamicCache()
        past = 0 if cache is None else cache.get_seq_length()
        seq = hidden.shape[1]
        if position_ids is None:
            position_ids = torch.arange(past, past + seq, device=hidden.device)[None]
        cos, sin = rotary_table(position_ids, self.config.head_dim, self.config.rope_theta)
        mask = attention_mask_for(past, seq, attention_mask, hidden.device)
        for layer in self.model.layers:
            hidden = layer(hidden, cos, sin, mask, cache)
        hidden = self.model.norm(hidden)
        kept = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        logits = F.linear(kept, self.model.embed_tokens.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        output = CausalLMOutputWithPast(**{"loss": loss, "logits": logits, CACHE_FIELD: cache})
        return output if return_dict is not False else output.to_tuple()


def rotary_table(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of [batch, seq] positions, fp32 [batch, 1, seq, head_dim / 2]."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device).float() / head_dim
    angles = positions[:, None, :, None].float() * (1.0 / base**steps)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Dimension i turned with i + head_dim / 2; [batch, heads, seq, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def attention_mask_for(past: int, seq: int, padding: Tensor | None, device: Any) -> Tensor | None:
    """Which keys a query sees, [batch or 1, 1, seq, past + seq]; None where plain causal attention says it."""
    if padding is not None and padding.dim() != 2:
        shape = list(padding.shape)
        raise ValueError(f"the attention mask has shape {shape}; this model takes [batch, seq], and no static cache")
    if padding is not None and bool(padding.all()):
        padding = None
    if padding is None and (past == 0 or seq == 1):
        return None
    keys = torch.arange(past + seq, device=device)
    queries = keys[past:, None]
    seen = (keys <= queries)[None, None]
    if padding is not None:
        # A query that is padding itself sees itself, or its softmax would be over nothing.
        seen = seen & padding[:, None, None, : past + seq].bool() | (keys == queries)
    return seen
