"""The block against the papers' formulas, written out plainly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from megatron_distill.config.model import ModelConfig
from megatron_distill.config.run import Layout
from tests.support.ranks import launch
from tests.support.worlds import student_world

SEQ, BATCH = 16, 2


def build(flavour: str, tp: int = 1, **options: Any) -> Any:
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise

    shape = ModelConfig(model=flavour, vocab_size=200).shape()
    layout = Layout(tensor=tp, pipeline=1, data=1, num_microbatches=1)
    settings = BuildOptions(dtype=torch.float32, attention_backend="sdpa", **options)
    model = build_decoder(shape, tuple(range(shape.num_layers)), layout, settings)
    initialise(model, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # away from 1 and 0, where errors would hide
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def plain_block(block: Any, h: Tensor, heads: int) -> Tensor:
    """h + W_out [Attention(RoPE(Norm(q)), RoPE(Norm(k)), v) | up * SiLU(gate)], with every matrix cut out by hand."""
    hidden = h.shape[-1]
    u = F.layer_norm(h, (hidden,), block.norm.weight, block.norm.bias, 1e-5)
    width, ffn = hidden // heads, 2 * hidden // heads
    w_in = block.linear_in.weight.view(heads, 3 * width + 2 * ffn, hidden)
    b_in = block.linear_in.bias
    parts = []
    for first, last in ((0, width), (width, 2 * width), (2 * width, 3 * width), (-2 * ffn, -ffn), (-ffn, None)):
        x = u @ w_in[:, first:last].reshape(-1, hidden).T
        parts.append(x if b_in is None else x + b_in.view(heads, -1)[:, first:last].reshape(-1))
    q, k, v, up, gate = parts
    if block.config.qk_layernorm:
        q, k = (x.unflatten(-1, (heads, width)) for x in (q, k))
        q = F.layer_norm(q, (width,), block.q_layernorm.weight, block.q_layernorm.bias, 1e-5)
        k = F.layer_norm(k, (width,), block.k_layernorm.weight, block.k_layernorm.bias, 1e-5)
    else:
        q = F.layer_norm(q, (hidden,), block.qk_norm.q_weight, block.qk_norm.q_bias, 1e-5).unflatten(-1, (heads, width))
        k = F.layer_norm(k, (hidden,), block.qk_norm.k_weight, block.qk_norm.k_bias, 1e-5).unflatten(-1, (heads, width))
    v = v.unflatten(-1, (heads, width))
    scores = torch.einsum("sbhd,tbhd->bhst", plain_rope(q), plain_rope(k)) / math.sqrt(width)
    scores = scores.masked_fill(torch.ones(SEQ, SEQ).tril() == 0, -math.inf)
    out = torch.einsum("bhst,tbhd->sbhd", scores.softmax(-1), v)
    inner = torch.cat((out, (up * F.silu(gate)).unflatten(-1, (heads, ffn))), dim=-1).flatten(-2)
    update = inner @ block.linear_out.weight.T
    return h + update + (0 if block.linear_out.bias is None else block.linear_out.bias)


def plain_rope(x: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + d/2}) as a complex number, times e^(i position theta_i)."""
    half = x.shape[-1] // 2
    theta = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones(SEQ, half, dtype=torch.float64), torch.arange(SEQ)[:, None] * theta)
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn[:, None, None]
    return torch.cat((pairs.real, pairs.imag), dim=-1).to(x.dtype)


def check_block(rank: int, flavour: str) -> None:
    with student_world():
        model = build(flavour)
        heads = model.config.num_attention_heads
        ours = model.decoder.layers[1]
        h = torch.randn(SEQ, BATCH, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
        weight = torch.randn(SEQ, BATCH, 64, generator=torch.Generator().manual_seed(2))
        found, _ = ours(h, rotary_pos_emb=model.rotary_pos_emb(SEQ))
        wanted = plain_block(ours, h, heads)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        over = [h, *ours.parameters()]
        for a, b in zip(
            torch.autograd.grad((found * weight).sum(), over),
            torch.autograd.grad((wanted * weight).sum(), over),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flavour", ["palm-tiny", "palm-tiny-paper"])
def test_block_is_the_formula(flavour: str, tmp_path: Path) -> None:
    launch(check_block, 1, 60.0, tmp_path, {"flavour": flavour})


def check_collectives(rank: int, flavour: str, sequence_parallel: bool, forward: dict, backward: dict) -> None:
    with student_world(tp=2):
        model = build(flavour, tp=2, sequence_parallel=sequence_parallel)
        block = model.decoder.layers[0]
        h = torch.randn(SEQ // 2 if sequence_parallel else SEQ, BATCH, 64, requires_grad=True)
        calls: dict[str, int] = {}

        def counted(name: str) -> Any:
            original = getattr(dist, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                calls[name] = calls.get(name, 0) + 1
                return original(*args, **kwargs)

            return call

        for name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor"):
            setattr(dist, name, counted(name))
        from megatron.core.tensor_parallel import layers, mappings

        for module in (layers, mappings):  # they take the functions by name at import
            for theirs, ours in (
                ("dist_all_gather_func", "all_gather_into_tensor"),
                ("dist_reduce_scatter_func", "reduce_scatter_tensor"),
            ):
                if hasattr(module, theirs):
                    setattr(module, theirs, getattr(dist, ours))
        out, _ = block(h, rotary_pos_emb=model.rotary_pos_emb(SEQ))
        assert calls == forward
        calls.clear()
        out.sum().backward()
        assert calls == backward


COLLECTIVES = {
    # No norm that spans ranks: one reduction a direction. With sequence parallelism the same bytes in two halves, and
    # the backward pass gathers the block's input once more for the weight's gradient instead of keeping it.
    ("palm-tiny", False): ({"all_reduce": 1}, {"all_reduce": 1}),
    ("palm-tiny", True): (
        {"all_gather_into_tensor": 1, "reduce_scatter_tensor": 1},
        {"all_gather_into_tensor": 2, "reduce_scatter_tensor": 1},
    ),
    # Full-width QK-LayerNorm: mean and variance forward, both sums at once backward.
    ("palm-tiny-paper", False): ({"all_reduce": 3}, {"all_reduce": 2}),
}


@pytest.mark.parametrize(("flavour", "sequence_parallel"), COLLECTIVES)
def test_collectives_of_a_layer(flavour: str, sequence_parallel: bool, tmp_path: Path) -> None:
    forward, backward = COLLECTIVES[flavour, sequence_parallel]
    arguments = {"flavour": flavour, "sequence_parallel": sequence_parallel}
    launch(check_collectives, 2, 60.0, tmp_path, arguments | {"forward": forward, "backward": backward})


def check_no_matrix_of_scores(rank: int) -> None:
    with student_world():
        model = build("palm-tiny")
        seq, largest = 512, 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, tensor.numel())
            return tensor

        ids = torch.randint(0, 200, (1, seq))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            hidden = model.embedding(ids, torch.arange(seq)[None])
            model.decoder.layers[0](hidden, rotary_pos_emb=model.rotary_pos_emb(seq))
        assert largest < 4 * seq * seq, "heads x seq x seq scores were kept for the backward pass"
        assert largest > 0


def test_attention_keeps_no_matrix_of_scores(tmp_path: Path) -> None:
    launch(check_no_matrix_of_scores, 1, 60.0, tmp_path, {})
