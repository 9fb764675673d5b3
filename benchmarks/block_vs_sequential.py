"""One PalmBlock against megatron-core's stock layer of the same width and as many weights, at tensor-parallel size 2.

python benchmarks/block_vs_sequential.py        starts its two ranks itself

Forward and backward of a chain of layers; and how many collectives one layer needs, counted.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)  # the stock layer's dropout generators mean little on a CPU, and say so

from measure import report, seconds_in_turns  # noqa: E402

from megatron_distill.config.model import ModelConfig  # noqa: E402
from megatron_distill.config.run import Layout  # noqa: E402
from megatron_distill.parallel import device  # noqa: E402
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402

RANKS = 2


def main() -> None:
    """Start the ranks, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="length of the chain")
    parser.add_argument("--rounds", type=int, default=30, help="passes of each side that count")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
        environment = os.environ | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // RANKS))}
        sys.exit(subprocess.run([*launcher, *sys.argv], env=environment).returncode)
    layout = Layout(tensor=RANKS, pipeline=1, data=1, num_microbatches=1)
    with open_world((Role("student", layout),)) as world, torch.device(device.current()):
        measure(layout, arguments, speaks=world.is_first)


def measure(layout: Layout, arguments: argparse.Namespace, *, speaks: bool) -> None:
    """Both chains on the same input."""
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise, transformer_config

    large = device.is_cuda()
    hidden, heads, seq, batch = (2048, 16, 2048, 4) if large else (256, 4, 256, 4)
    shape = ModelConfig(hidden_size=hidden, num_attention_heads=heads, num_layers=arguments.layers).shape()
    options = BuildOptions(dtype=device.dtype("auto"), attention_backend="sdpa")
    model = build_decoder(shape, tuple(range(arguments.layers)), layout, options)
    initialise(model, seed=1)
    rotary = model.rotary_pos_emb(seq)
    stock = stock_layers(transformer_config(shape, arguments.layers, layout, options))
    stock_rotary = stock_positions(shape.head_dim, seq)
    mask = torch.ones(1, 1, seq, seq).triu(1).bool()
    x = torch.randn(seq, batch, hidden, dtype=options.dtype, requires_grad=True)

    def run(layers: Any, **inputs: Any) -> None:
        h = x
        for layer in layers:
            h, _ = layer(h, **inputs)
        h.sum().backward()

    def ours() -> None:
        run(model.decoder.layers, rotary_pos_emb=rotary)

    def peer() -> None:
        run(stock, attention_mask=mask, rotary_pos_emb=stock_rotary)

    mine, theirs = seconds_in_turns(ours, peer, rounds=arguments.rounds)
    with_our_attention(stock)
    mine_again, same_attention = seconds_in_turns(ours, peer, rounds=arguments.rounds)
    counts = [collectives(call) / arguments.layers for call in (ours, peer)]
    weights = [
        sum(p.numel() for layer in layers for p in layer.parameters()) for layers in (model.decoder.layers, stock)
    ]
    if speaks:
        note = {"weights_ours": weights[0], "weights_peer": weights[1], "ranks": RANKS}
        report("block_vs_sequential_time", mine * 1e3, theirs * 1e3, f"ms for {arguments.layers} layers", **note)
        unit = f"ms for {arguments.layers} layers, both with {model.decoder.layers[0].attention.backend}"
        report("block_vs_sequential_same_attention", mine_again * 1e3, same_attention * 1e3, unit)
        report("block_vs_sequential_collectives", *counts, "all-reduces a layer, forward and backward")


def stock_layers(config: Any) -> Any:
    """megatron-core's own transformer layers, as its GPT models have them without Transformer Engine."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.spec_utils import build_module

    config.init_method = config.output_layer_init_method = lambda w: torch.nn.init.normal_(w, std=0.02)
    config.activation_func = torch.nn.functional.silu
    spec = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm)
    layers = [build_module(spec, config=config, layer_number=i + 1) for i in range(config.num_layers)]
    return torch.nn.ModuleList(layers).to(device.current(), config.params_dtype)


class _OurAttention(torch.nn.Module):
    """Our attention kernel behind the interface of the stock layer's."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return self.kernel(query, key, value).flatten(-2)


def with_our_attention(stock: Any) -> None:
    """Leave only the shape of the block to differ: the stock layer without Transformer Engine materialises scores."""
    from megatron_distill.models.attention import CausalAttention

    for layer in stock:
        attention = layer.self_attention
        attention.core_attention = _OurAttention(CausalAttention(attention.config, "sdpa", 1))


def stock_positions(head_dim: int, seq: int) -> Any:
    """megatron-core's table of rotary angles."""
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

    return RotaryEmbedding(kv_channels=head_dim, rotary_percent=1.0, use_cpu_initialization=not device.is_cuda())(seq)


def collectives(call: Callable[[], None]) -> int:
    """All-reduces that a call makes."""
    counted: Counter[str] = Counter()
    original = dist.all_reduce

    def all_reduce(*args: Any, **kwargs: Any) -> Any:
        counted["all_reduce"] += 1
        return original(*args, **kwargs)

    dist.all_reduce = all_reduce
    try:
        call()
    finally:
        dist.all_reduce = original
    return counted["all_reduce"]


if __name__ == "__main__":
    main()
