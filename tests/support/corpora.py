"""Small corpora with structure in them, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megatron_distill.data.indexed import IndexedWriter


def write_corpus(prefix: Path, *, documents: int = 40, length: int = 200, vocab: int = 60, seed: int = 0) -> Path:
    """A corpus of noisy arithmetic sequences modulo `vocab`, learnable in a few steps; returns its prefix."""
    generator = np.random.default_rng(seed)
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for _ in range(documents):
            steps = generator.choice([1, 1, 1, 2, 7], size=length)
            writer.add_document(np.cumsum(steps) % vocab)
    return prefix
