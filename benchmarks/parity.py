"""How far the logits of a checkpoint and of transformers are apart, for every family, in and out, and whether a round
trip gives every tensor back bit for bit.

python benchmarks/parity.py

Small random models of the real architectures (tests/support/public_models.py), fp32 on both sides.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

from megatron_distill.checkpoint.comparison import compare as compare_logits  # noqa: E402
from megatron_distill.checkpoint.from_hf import import_model  # noqa: E402
from megatron_distill.checkpoint.huggingface import export  # noqa: E402
from megatron_distill.checkpoint.manifest import read_manifest  # noqa: E402
from megatron_distill.config.run import Layout  # noqa: E402
from megatron_distill.parallel.worlds import Role, open_world  # noqa: E402
from tests.support.public_models import MODELS, save_public_model  # noqa: E402


def main() -> None:
    """One JSON object a model."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with open_world((Role("parity", Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)),)):
        for name in MODELS:
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps({"name": "parity", "model": name} | compare(name, Path(folder))), flush=True)


def compare(name: str, folder: Path) -> dict[str, object]:
    """Largest differences of logits in and out."""
    theirs = save_public_model(name, folder / "theirs")
    checkpoint = import_model(theirs, folder / "ours")
    manifest = read_manifest(checkpoint)
    export(checkpoint, manifest, folder / "again")
    before, after = (load_file(folder / side / "model.safetensors") for side in ("theirs", "again"))
    same = before.keys() == after.keys() and all(torch.equal(after[key], value) for key, value in before.items())
    differences = [compare_logits(checkpoint, side).difference for side in (theirs, folder / "again")]
    return {"in": float(f"{differences[0]:.2g}"), "out": float(f"{differences[1]:.2g}"), "round_trip_is_exact": same}


if __name__ == "__main__":
    main()
