"""Distillation losses on vocabulary-, head- and sequence-parallel shards: sums and gradients, nothing gathered."""
