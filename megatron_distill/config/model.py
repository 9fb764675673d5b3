"""The numbers that define a decoder, and the named sizes of the papers."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

from . import cost
from .block import Block, block_from_dict
from .error import ConfigError
from .limits import LONGEST, TOKEN_IDS, limited


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder, complete and checked; says nothing of how it is laid out over ranks."""

    family: str
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    vocab_size: int
    padded_vocab_size: int
    max_position_embeddings: int
    add_bias_linear: bool
    qk_layernorm: Literal["per-head", "full"]
    norm_epsilon: float
    rotary_base: float
    init_method_std: float
    block: Block | None = None
    """The layers of a family other than PaLM, whose parallel block the fields above describe completely."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        if self.block is not None:
            return self.block.head_dim
        return self.hidden_size // self.num_attention_heads

    @property
    def num_query_groups(self) -> int:
        """Key and value heads, the unit that tensor parallelism splits."""
        return self.num_attention_heads if self.block is None else self.block.num_query_groups

    @property
    def num_outcomes(self) -> int:
        """Rows of the output matrix that have a probability: all of a PaLM's, as in the papers; of other families,
        padding has none."""
        return self.padded_vocab_size if self.block is None else self.vocab_size

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding table."""
        return self.block is None or self.block.tied

    @property
    def sequence_limit(self) -> int | None:
        """Tokens that a sequence may have: the learned positions, or a sliding window, within which full attention is
        the same; None if there is no such limit."""
        if self.block is None:
            return None
        return self.block.window if self.block.rotary_dim else self.max_position_embeddings

    @property
    def context_length(self) -> int:
        """Tokens that the model is meant to read, and that ours reads as the public model does."""
        return min(self.max_position_embeddings, self.sequence_limit or self.max_position_embeddings)

    def num_parameters(self, num_layers: int | None = None) -> int:
        """Every parameter once (the tied embedding too) of this model, or of one with `num_layers` of its layers."""
        count = self.num_layers if num_layers is None else num_layers
        if self.block is not None:
            return self.block.num_parameters(
                count,
                self.hidden_size,
                self.num_attention_heads,
                self.ffn_hidden_size,
                self.padded_vocab_size,
                self.max_position_embeddings,
            )
        return cost.palm_parameters(
            count,
            self.hidden_size,
            self.ffn_hidden_size,
            self.num_attention_heads,
            self.padded_vocab_size,
            bias=self.add_bias_linear,
            qk_norm=self.qk_layernorm,
        )

    def flops_per_token(self, seq_length: int, num_layers: int | None = None) -> float:
        """True floating-point operations of forward and backward for one token."""
        count = self.num_layers if num_layers is None else num_layers
        if self.block is not None:
            return self.block.flops_per_token(
                count,
                self.hidden_size,
                self.num_attention_heads,
                self.ffn_hidden_size,
                self.padded_vocab_size,
                seq_length,
            )
        return cost.true_flops_per_token(
            count,
            self.hidden_size,
            self.ffn_hidden_size,
            self.padded_vocab_size,
            seq_length,
        )


_PAPER = {"add_bias_linear": True, "qk_layernorm": "full"}
_SIZES: dict[str, dict[str, Any]] = {
    # arXiv:2305.14864, Table 1: width, heads, layers.
    "palm-180m": {"num_layers": 12, "hidden_size": 1024, "num_attention_heads": 16},
    "palm-300m": {"num_layers": 24, "hidden_size": 1024, "num_attention_heads": 16},
    "palm-610m": {"num_layers": 12, "hidden_size": 2048, "num_attention_heads": 16},
    "palm-1.1b": {"num_layers": 24, "hidden_size": 2048, "num_attention_heads": 16},
    "palm-tiny": {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4},
}
PRESETS: dict[str, dict[str, Any]] = _SIZES | {f"{name}-paper": size | _PAPER for name, size in _SIZES.items()}
"""Model names on the command line; a `-paper` one has biases and QK-LayerNorm over the full width."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model: a named size, and whatever is to differ from it."""

    model: str | None = None
    """Named size, palm-tiny if absent: palm-180m, palm-300m, palm-610m, palm-1.1b, palm-tiny, and each with -paper
    (biases and QK-LayerNorm over the full width, parameter counts as published)."""
    num_layers: int | None = limited(None, least=1, most=10_000)
    """Transformer layers."""
    hidden_size: int | None = limited(None, least=1, most=1 << 20)
    """Width of the residual stream."""
    ffn_hidden_size: int | None = limited(None, least=1, most=1 << 22)
    """Inner width of SwiGLU; twice the hidden size if absent."""
    num_attention_heads: int | None = limited(None, least=1, most=1 << 16)
    """Attention heads."""
    max_position_embeddings: int = limited(2048, least=1, most=LONGEST)
    """Longest sequence the exported model promises."""
    vocab_size: int | None = limited(None, least=1, most=TOKEN_IDS)
    """Token ids the model knows; the tokenizer's size if --tokenizer is given, else 50257."""
    make_vocab_size_divisible_by: int = limited(128, least=1, most=1 << 20)
    """The embedding table gets rows up to a multiple of this."""
    norm_epsilon: float = limited(1e-5, above=0, most=1)
    """Added to the variance in LayerNorm."""
    rotary_base: int = limited(10000, least=2, most=10**12)
    """Base period of rotary position embeddings."""
    init_method_std: float = limited(0.02, above=0, most=100)
    """Standard deviation of initial weights; residual outputs are divided by sqrt(2 x layers)."""

    def __post_init__(self) -> None:
        if self.model is not None and self.model not in PRESETS:
            near = difflib.get_close_matches(self.model, PRESETS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(PRESETS))}"
            raise ConfigError(f"--model {self.model} is not known; {hint}")

    def given(self) -> list[str]:
        """The fields besides `model` that differ from their defaults and describe the weights."""
        # How long sequences may get is no property of the weights, and neither is how they were drawn.
        silent = {"model", "max_position_embeddings", "init_method_std"}
        names = [f for f in dataclasses.fields(self) if f.name not in silent]
        return [f.name for f in names if getattr(self, f.name) != f.default]

    def shape(self, tokenizer_vocab_size: int | None = None) -> ModelShape:
        """The complete model; `tokenizer_vocab_size` counts where --vocab-size is absent.

        Raises:
            ConfigError: the heads do not divide the width, or the feed-forward width.
        """
        preset = PRESETS[self.model or "palm-tiny"]
        hidden = self.hidden_size or preset["hidden_size"]
        heads = self.num_attention_heads or preset["num_attention_heads"]
        ffn = self.ffn_hidden_size or 2 * hidden
        vocab = self.vocab_size or tokenizer_vocab_size or 50257
        step = self.make_vocab_size_divisible_by
        if hidden % heads or (hidden // heads) % 2:
            raise ConfigError(
                f"--hidden-size {hidden} over --num-attention-heads {heads} must give an even whole head width; "
                f"choose a width that is a multiple of {2 * heads}"
            )
        if ffn % heads:
            raise ConfigError(
                f"--ffn-hidden-size {ffn} must be a multiple of --num-attention-heads {heads}, "
                "because each tensor-parallel rank holds whole heads and an equal part of the feed-forward"
            )
        return ModelShape(
            family="palm",
            num_layers=self.num_layers or preset["num_layers"],
            hidden_size=hidden,
            ffn_hidden_size=ffn,
            num_attention_heads=heads,
            vocab_size=vocab,
            padded_vocab_size=-(-vocab // step) * step,
            max_position_embeddings=self.max_position_embeddings,
            add_bias_linear=preset.get("add_bias_linear", False),
            qk_layernorm=preset.get("qk_layernorm", "per-head"),
            norm_epsilon=self.norm_epsilon,
            rotary_base=self.rotary_base,
            init_method_std=self.init_method_std,
        )


def check_sequence(shape: ModelShape, tokens: int, given: str, where: object) -> None:
    """Raise ConfigError where a sequence of `tokens` is longer than the model of `where` allows; `given` is what asked
    for it."""
    limit = shape.sequence_limit
    if limit is None or tokens <= limit:
        return
    windowed = shape.block is not None and shape.block.rotary_dim
    why = (
        f"the sliding window of {where}, because full attention over more is another model"
        if windowed
        else f"the positions that {where} has learned"
    )
    raise ConfigError(f"{given} must be at most {limit}, {why}")


def shape_from_dict(values: dict[str, Any]) -> ModelShape:
    """The shape that `dataclasses.asdict` wrote into a manifest."""
    known = {f.name: values[f.name] for f in dataclasses.fields(ModelShape) if f.name != "block"}
    # Manifests of before there were other families have no block.
    return ModelShape(**known, block=block_from_dict(values.get("block")))
