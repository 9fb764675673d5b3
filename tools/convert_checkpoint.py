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
    inspect = commands.add_parser("inspect", help="what a checkpoint or a Hugging Face folder is")
    inspect.add_argument("run", type=Path, help="run folder, checkpoint or Hugging Face folder")
    inspect.add_argument("--verify", action="store_true", help="read every byte of a checkpoint and compare checksums")
    for command in (to_hf, from_hf):
        command.add_argument(
            "--no-compare", action="store_true", help="do not compare logits, which needs memory for both models"
        )
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    try:
        if arguments.command == "inspect":
            from megatron_distill.checkpoint.describe import describe

            print(describe(arguments.run, verify=arguments.verify))
            return 0
        if arguments.command == "from-hf":
            return import_folder(arguments.folder, arguments.out, compared=not arguments.no_compare)
        return export(arguments.run, arguments.out, compared=not arguments.no_compare)
    except (ValueError, FileNotFoundError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 1


def export(run: Path, out: Path, *, compared: bool = True) -> int:
    """Write `out` and compare it with the checkpoint."""
    from megatron_distill.checkpoint.huggingface import export as write_folder

    folder = find_checkpoint(run)
    write_folder(folder, read_manifest(folder), out)
    return compare(run, out) if compared else _not_compared(out)


def import_folder(folder: Path, out: Path, *, compared: bool = True) -> int:
    """Write `out` and compare it with the Hugging Face folder."""
    from megatron_distill.checkpoint.from_hf import import_model

    import_model(folder, out)
    return compare(out, folder, wrote=out) if compared else _not_compared(out)


def _not_compared(out: Path) -> int:
    print(f"wrote {out}: logits not compared")
    return 0


def compare(run: Path, out: Path, *, wrote: Path | None = None) -> int:
    """Compare the logits of a checkpoint and of a Hugging Face folder on text; 0 if they are equal."""
    from transformers.utils import logging

    from megatron_distill.checkpoint.comparison import largest_difference

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
