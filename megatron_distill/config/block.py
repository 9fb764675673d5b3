"""What a sequential decoder layer is made of: attention, then a feed-forward, each with its own norm and residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Block:
    """The choices in which Llama, Mistral, Qwen, GPT-2, OPT and GPT-NeoX differ; the defaults are Llama's."""

    num_query_groups: int
    """Key and value heads; each serves as many query heads as the others."""
    head_dim: int
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    """Whether the feed-forward multiplies with a second projection of its input."""
    tied: bool = False
    """Whether the output matrix is the embedding table."""
    parallel_residual: bool = False
    """Whether both halves read the layer's input, as in GPT-J and GPT-NeoX."""
    rotary_dim: int = 0
    """Leading dimensions of a head that rotate with the position; 0 for learned positions."""
    rotary_scaling: float = 1.0
    """Factor by which Llama 3.1 stretches its slow rotations (its other numbers are 1, 4 and 8192); 1 for none."""
    position_offset: int = 0
    """Rows of the table of learned positions before that of position 0."""
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Whether each head's queries and keys are normalised, with one weight for all heads."""
    window: int | None = None
    """Tokens that a query of the public model sees, its own included (sliding-window attention); None for all. Our
    attention sees all of them always, so sequences are bounded by it (`ModelShape.sequence_limit`)."""
    full_layers: tuple[int, ...] = ()
    """Layers, by their original index, that the window does not bound."""

    def num_parameters(self, num_layers: int, hidden: int, heads: int, ffn: int, vocab: int, positions: int) -> int:
        """Every parameter of a decoder of such layers, a tied table once."""
        norm = hidden * (2 if self.norm == "layernorm" else 1)
        qkv = (heads + 2 * self.num_query_groups) * self.head_dim
        biases = self.qkv_bias * qkv + self.proj_bias * hidden + self.mlp_bias * (ffn * (1 + self.gated) + hidden)
        layer = self.matmul_parameters(hidden, heads, ffn) + biases + 2 * norm + self.qk_norm * 2 * self.head_dim
        tables = vocab * hidden * (1 if self.tied else 2)
        if not self.rotary_dim:
            tables += (positions + self.position_offset) * hidden
        return num_layers * layer + tables + norm

    def matmul_parameters(self, hidden: int, heads: int, ffn: int) -> int:
        """Entries of the matrices of one layer."""
        attention = hidden * self.head_dim * (2 * heads + 2 * self.num_query_groups)
        return attention + hidden * ffn * (3 if self.gated else 2)

    def flops_per_token(self, num_layers: int, hidden: int, heads: int, ffn: int, vocab: int, seq: int) -> float:
        """FLOPs of forward and backward for one token, counted as in `cost.true_flops_per_token`."""
        matrices = num_layers * self.matmul_parameters(hidden, heads, ffn) + vocab * hidden
        attention = num_layers * 2 * heads * self.head_dim * (seq + 1) / 2
        return 6.0 * (matrices + attention)


def block_from_dict(values: dict[str, Any] | None) -> Block | None:
    """The block that `dataclasses.asdict` wrote; None for PaLM's, which needs none."""
    if values is None:
        return None
    return Block(**{**values, "full_layers": tuple(values.get("full_layers", ()))})
