"""The same model in plain PyTorch, as one writes it for a single GPU: the peer of gpu_training.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_distill.config.model import ModelShape


class PlainPalm(nn.Module):
    """Tokens [batch, seq] and labels to the mean loss; fp32 weights, to be run under autocast and torch.compile."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.padded_vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(PlainBlock(shape) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_epsilon, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=shape.init_method_std)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        h = self.embedding(tokens)
        for layer in self.layers:
            h = layer(h)
        logits = F.linear(self.norm(h), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


class PlainBlock(nn.Module):
    """PaLM's parallel block with per-head QK-LayerNorm."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        d, f = shape.hidden_size, shape.ffn_hidden_size
        self.heads, self.base, self.split = shape.num_attention_heads, shape.rotary_base, [d, d, d, f, f]
        self.norm = nn.LayerNorm(d, eps=shape.norm_epsilon, bias=False)
        self.q_norm, self.k_norm = (nn.LayerNorm(shape.head_dim, eps=shape.norm_epsilon, bias=False) for _ in range(2))
        self.linear_in = nn.Linear(d, 3 * d + 2 * f, bias=False)
        self.linear_out = nn.Linear(d + f, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v, up, gate = self.linear_in(self.norm(h)).split(self.split, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        q, k = self.rotate(self.q_norm(q)), self.rotate(self.k_norm(k))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        return h + self.linear_out(torch.cat((out, up * F.silu(gate)), dim=-1))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary positions on [batch, heads, seq, head dim]."""
        half = x.shape[-1] // 2
        theta = self.base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
        angles = torch.arange(x.shape[-2], device=x.device)[:, None] * theta
        cos, sin = angles.cos(), angles.sin()
        a, b = x.float().chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(torch.get_autocast_dtype(x.device.type))
