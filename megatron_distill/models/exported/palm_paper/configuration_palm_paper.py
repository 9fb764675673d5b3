"""Configuration of a PaLM with biases and QK-LayerNorm over the full width."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class PalmPaperConfig(PretrainedConfig):
    """The numbers that define the model; see modeling_palm_paper.py for what they mean."""

    model_type = "palm_paper"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012 - transformers' own name and type

    def __init__(
        self,
        vocab_size: int = 50304,
        hidden_size: int = 1024,
        intermediate_size: int = 2048,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 16,
        max_position_embeddings: int = 2048,
        layer_norm_eps: float = 1e-5,
        rope_theta: float = 10000.0,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads
        self.head_dim = hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.rope_theta = rope_theta
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(**{"tie_word_embeddings": True} | others)
