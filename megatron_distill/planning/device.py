"""What a plan assumes of the machines: data-sheet figures, one line a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one core of a CPU, that holds one rank."""

    name: str
    peak_flops: float
    """Multiply-adds count as two; bf16 without sparsity, fp32 on a CPU."""
    memory: float
    """Bytes."""
    link: float
    """Bytes a second to another device of the node, one way."""
    network: float
    """Bytes a second of each device to another node, one way."""
    element_bytes: int = 2
    """Of a weight or an activation: bf16, or fp32 on a CPU."""


DEVICES = {
    device.name: device
    for device in (
        # NVLink 3 with 12 links, NVLink 4 with 18; a port of 200 or 400 Gbit/s for each GPU, as in DGX systems.
        Device(name="a100-80gb", peak_flops=312e12, memory=80 * 2**30, link=300e9, network=25e9),
        Device(name="a100-40gb", peak_flops=312e12, memory=40 * 2**30, link=300e9, network=25e9),
        Device(name="h100", peak_flops=989e12, memory=80 * 2**30, link=450e9, network=50e9),
        Device(name="h200", peak_flops=989e12, memory=140 * 2**30, link=450e9, network=50e9),
        # A core with two 512-bit units at 2.5 GHz and its share of the memory; processes of one machine over loopback.
        Device(name="cpu", peak_flops=160e9, memory=4 * 2**30, link=2e9, network=1e9, element_bytes=4),
    )
}
"""Presets of `--device`."""
