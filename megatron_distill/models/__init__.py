"""Decoders built from megatron-core's parallel layers."""
