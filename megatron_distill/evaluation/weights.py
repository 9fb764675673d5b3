"""Which weights a checkpoint holds, told without reading them and without torch."""

from __future__ import annotations

from pathlib import Path

from megatron_distill.checkpoint.manifest import read_manifest


def checkpoint_weights(folder: Path) -> str:
    """Fingerprint of the weights of a checkpoint of ours, from the checksums in its manifest.

    Raises:
        ConfigError: it is no checkpoint, or an incomplete one.
    """
    return read_manifest(folder).fingerprint
