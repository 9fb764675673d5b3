"""From a shape to this rank's part of the model: megatron-core's GPTModel around our blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout

from .families import find_family
from .norms import LayerNorm, RMSNorm
from .rotary import RotaryTable

RESIDUAL_OUTPUTS = ("linear_out", "linear_proj", "linear_fc2")
"""Matrices whose product is added to the residual stream."""
_NEVER = -1e4
"""Logit of a row that only pads the vocabulary: exp of it is 0, and no difference of such logits overflows."""


@dataclass(frozen=True)
class BuildOptions:
    """How a model runs, as against what it is."""

    dtype: torch.dtype
    attention_backend: str
    sequence_parallel: bool = False
    recompute: bool = False


def stage_layers(layers: tuple[int, ...], num_stages: int, stage: int) -> tuple[int, ...]:
    """The part of `layers` that a pipeline stage holds: contiguous, sizes differ by one at most, larger ones first."""
    size, extra = divmod(len(layers), num_stages)
    first = stage * size + min(stage, extra)
    return layers[first : first + size + (stage < extra)]


def _leave(weight: Tensor) -> Tensor:
    return weight


def transformer_config(shape: ModelShape, num_layers: int, layout: Layout, options: BuildOptions) -> TransformerConfig:
    """megatron-core's description of the same model."""
    return TransformerConfig(
        num_layers=num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.head_dim,
        gated_linear_unit=shape.block is None or shape.block.gated,
        add_bias_linear=shape.add_bias_linear,
        qk_layernorm=shape.qk_layernorm == "per-head" if shape.block is None else shape.block.qk_norm,
        layernorm_epsilon=shape.norm_epsilon,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=options.dtype,
        pipeline_dtype=options.dtype,
        bf16=options.dtype is torch.bfloat16,
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        sequence_parallel=options.sequence_parallel,
        recompute_granularity="full" if options.recompute else None,
        recompute_method="uniform" if options.recompute else None,
        recompute_num_layers=1 if options.recompute else None,
        # Losses are sums; megatron-core divides gradients once by the global number of tokens.
        calculate_per_token_loss=True,
        init_method=_leave,  # `initialise` below does it, alike on every layout
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        deallocate_pipeline_outputs=True,
    )


class Decoder(GPTModel):
    """This pipeline stage's part of a decoder; `layers` are original indices, whatever pruning has removed."""

    def __init__(self, shape: ModelShape, layers: tuple[int, ...], layout: Layout, options: BuildOptions) -> None:
        rank = parallel_state.get_pipeline_model_parallel_rank()
        self_layers = stage_layers(layers, layout.pipeline, rank)
        layer, block = find_family(shape.family).layer, shape.block
        common = {"attention_backend": options.attention_backend} | ({} if block is None else {"block": block})
        specs = [ModuleSpec(module=layer, params={"index": i} | common) for i in self_layers]
        norm = RMSNorm if block is not None and block.norm == "rmsnorm" else LayerNorm
        rotary_dim = shape.head_dim if block is None else block.rotary_dim
        self.position_offset = 0 if block is None else block.position_offset
        super().__init__(
            config=transformer_config(shape, len(layers), layout, options),
            transformer_layer_spec=TransformerBlockSubmodules(layer_specs=specs, layer_norm=norm),
            vocab_size=shape.padded_vocab_size,
            max_sequence_length=shape.max_position_embeddings + self.position_offset,
            pre_process=rank == 0,
            post_process=rank == layout.pipeline - 1,
            position_embedding_type="rope" if rotary_dim else "learned_absolute",
            rotary_base=shape.rotary_base,
            share_embeddings_and_output_weights=shape.tied,
        )
        if rotary_dim:
            self.rotary_pos_emb = RotaryTable(
                rotary_dim,
                shape.rotary_base,
                cp_group=self.pg_collection.cp,
                rope_scaling=block is not None and block.rotary_scaling != 1,
                rope_scaling_factor=1.0 if block is None else block.rotary_scaling,
            )
        elif self.pre_process:
            # megatron-core makes this table in fp32 and casts whole models later. One dtype for all parameters is also
            # what the optimizer's state relies on.
            self.embedding.position_embeddings.to(options.dtype)
        self.shape = shape
        self.layer_indices = self_layers
        self.head: Callable[[Tensor], Tensor] | None = None
        """What the last stage makes of the final hidden states [seq (of this rank, with sequence parallelism), batch,
        hidden], instead of logits or losses."""
        for position, layer in enumerate(self.decoder.layers):
            layer.layer_number = position + 1
        if block is not None and self.post_process and shape.padded_vocab_size > shape.vocab_size:
            self.output_layer.register_forward_hook(self._mask_padding)

    def forward(self, input_ids: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """megatron-core's forward: [batch, seq] ids and positions to losses or logits; OPT counts positions from 2."""
        if self.position_offset and position_ids is not None:
            position_ids = position_ids + self.position_offset
        return super().forward(input_ids, position_ids, *args, **kwargs)

    def _postprocess(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.post_process and self.head is not None:
            return self.head(hidden_states)
        return super()._postprocess(hidden_states, *args, **kwargs)

    def _mask_padding(self, module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        """Public models know nothing of rows that pad the vocabulary, so these must not count in the softmax."""
        logits, bias = output
        width = logits.shape[-1]
        first = parallel_state.get_tensor_model_parallel_rank() * width
        if first + width <= self.shape.vocab_size:
            return output
        padding = torch.arange(first, first + width, device=logits.device) >= self.shape.vocab_size
        return logits.masked_fill(padding, _NEVER), bias

    def original_name(self, name: str) -> str:
        """A parameter's name with the original index of its layer, and one name for the tied embedding."""
        if name.startswith("output_layer.") and self.shape.tied:
            return "embedding.word_embeddings.weight"
        head, found, rest = name.partition("decoder.layers.")
        if not found:
            return name
        position, _, tail = rest.partition(".")
        return f"{head}{found}{self.layer_indices[int(position)]}.{tail}"

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: Any = None) -> dict[str, Any]:
        """megatron-core's description of this stage's tensors, stored under the original indices of their layers."""
        metadata = (metadata or {}) | {"non_homogeneous_layers": True}
        offset = _core_layer_offset(self)
        for position, layer in enumerate(self.decoder.layers):
            # megatron-core subtracts an offset that supposes equal stages.
            layer.layer_number = position + 1 + offset
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        kept = {}
        for name, sharded in state.items():
            if name.endswith("_extra_state"):
                continue  # empty outside fp8
            sharded.key = self.original_name(name)
            kept[name] = sharded
        return kept


def _core_layer_offset(model: Decoder) -> int:
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    return get_transformer_layer_offset(model.config, None, parallel_state.get_pipeline_model_parallel_rank())


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> None:
    """Fresh weights: normal with the shape's std, residual outputs divided by sqrt(2 x layers), norms 1, biases 0.

    Each tensor is drawn whole from a generator of its own, seeded by its name, and cut to this rank's part: the same
    model on every tensor- and pipeline-parallel layout. (arXiv:2305.14864; MosaicML's initialisation.)
    """
    shape, rank = model.shape, parallel_state.get_tensor_model_parallel_rank()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            std = shape.init_method_std
            if any(part in name for part in RESIDUAL_OUTPUTS):
                std /= math.sqrt(2 * shape.num_layers)
            parameter.copy_(_draw(parameter, f"{seed}:{model.original_name(name)}", std, rank, model.config))


def _draw(parameter: nn.Parameter, name: str, std: float, rank: int, config: TransformerConfig) -> Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1)
    tp = config.tensor_model_parallel_size
    whole = list(parameter.shape)
    if getattr(parameter, "tensor_model_parallel", False):
        whole[parameter.partition_dim] *= tp  # type: ignore[attr-defined]
        values = torch.normal(0.0, std, whole, generator=generator)
        return values.chunk(tp, dim=parameter.partition_dim)[rank].to(parameter.dtype)  # type: ignore[attr-defined]
    return torch.normal(0.0, std, whole, generator=generator).to(parameter.dtype)


def build_decoder(
    shape: ModelShape,
    layers: tuple[int, ...],
    layout: Layout,
    options: BuildOptions,
    *,
    frozen: frozenset[int] = frozenset(),
) -> Decoder:
    """This rank's stage of the model made of `layers`, on its device, weights not yet set; `frozen` ones take no
    gradient (it still flows through them)."""
    model = Decoder(shape, layers, layout, options).cuda()
    for layer in model.decoder.layers:
        if layer.index in frozen:
            layer.requires_grad_(False)
    return model
