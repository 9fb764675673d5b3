"""Turn a run's checkpoint into a Hugging Face folder, or a public model into a run, and prove that both are equal.

python tools/convert_checkpoint.py from-hf models/pythia-70m runs/pythia-70m
python tools/convert_checkpoint.py to-hf runs/quickstart/compressed exported
python tools/convert_checkpoint.py inspect runs/quickstart/compressed
"""

from __future__ import annotations

import argparse
import sys
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest

TOLERANCE = 1e-4
"""Largest difference of fp32 logits that rounding explains: the two programs add in other orders."""


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    to_hf = commands.add_parser("to-hf", help="write a Hugging Face folder and compare logits")
    to_hf.add_argument("run", type=Path, help="run folder or checkpoint")
    to_hf.add_argument("out", type=Path, help="folder to write")
    from_hf = commands.add_parser("from-hf", help="read a Hugging Face folder and compare logits")
    from_hf.add_argument("folder", type=Path, help="folder with config.json and weights")
    from_hf.add_argument("out", type=Path, help="run folder to write; give it to --load")
    inspect = commands.add_parser("inspect", help="what a checkpoint is")
    inspect.add_argument("run", type=Path, help="run folder or checkpoint")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    try:
        if arguments.command == "inspect":
            print(describe(arguments.run))
            return 0
        if arguments.command == "from-hf":
            return import_folder(arguments.folder, arguments.out)
        return export(arguments.run, arguments.out)
    except (ValueError, FileNotFoundError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 1


def describe(run: Path) -> str:
    """A checkpoint in a few lines."""
    folder = find_checkpoint(run)
    manifest = read_manifest(folder)
    shape = manifest.shape
    gone = sorted(set(range(shape.num_layers)) - set(manifest.layers))
    size = sum(manifest.files.values())
    return "\n".join(
        [
            f"{folder}: {shape.family}, {shape.num_parameters(len(manifest.layers)):,} parameters, {manifest.dtype}",
            f"width {shape.hidden_size}, {shape.num_attention_heads} heads, vocabulary {shape.vocab_size:,}",
            f"layers kept: {', '.join(map(str, manifest.layers))}",
            f"layers removed: {', '.join(map(str, gone)) or 'none'}",
            f"step {manifest.iteration:,}, {manifest.consumed_tokens:,} tokens seen, optimizer {manifest.optimizer}",
            f"{size / 2**20:,.1f} MiB in {len(manifest.files)} files, tokenizer {manifest.tokenizer or 'not recorded'}",
        ]
    )


def export(run: Path, out: Path) -> int:
    """Write `out` and compare it with the checkpoint."""
    from megatron_distill.checkpoint.huggingface import export as write_folder

    folder = find_checkpoint(run)
    with _single_world():
        write_folder(folder, read_manifest(folder), out)
    return compare(run, out)


def import_folder(folder: Path, out: Path) -> int:
    """Write `out` and compare it with the Hugging Face folder."""
    from megatron_distill.checkpoint.from_hf import import_model

    import_model(folder, out)
    return compare(out, folder, wrote=out)


def compare(run: Path, out: Path, *, wrote: Path | None = None) -> int:
    """Compare the logits of a checkpoint and of a Hugging Face folder on random tokens; 0 if they are equal."""
    from transformers.utils import logging

    from megatron_distill.checkpoint.huggingface import largest_difference

    logging.disable_progress_bar()
    folder = find_checkpoint(run)
    manifest = read_manifest(folder)
    with _single_world():
        difference = largest_difference(folder, manifest, out)
    verdict = "equal" if difference <= TOLERANCE else "NOT EQUAL"
    print(f"wrote {wrote or out}: logits {verdict}, largest difference {difference:.2g} (limit {TOLERANCE:g})")
    return 0 if difference <= TOLERANCE else 1


def _single_world() -> AbstractContextManager[object]:
    from megatron_distill.config.run import Layout
    from megatron_distill.parallel.worlds import Role, open_world

    return open_world((Role("convert", Layout(tensor=1, pipeline=1, data=1, num_microbatches=1)),))


if __name__ == "__main__":
    sys.exit(main())
