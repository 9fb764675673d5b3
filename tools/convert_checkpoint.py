"""Turn a run's checkpoint into a Hugging Face folder, or a public model into a run, and prove that both are equal.

python tools/convert_checkpoint.py from-hf models/pythia-70m runs/pythia-70m
python tools/convert_checkpoint.py to-hf runs/quickstart/compressed exported
python tools/convert_checkpoint.py inspect runs/quickstart/compressed
"""

from __future__ import annotations

import sys
import warnings
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.limits import path
from megatron_distill.config.program import run_program


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run_program("convert_checkpoint.py", lambda: convert(arguments))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    to_hf = commands.add_parser("to-hf", help="write a Hugging Face folder and compare logits")
    to_hf.add_argument("run", type=path, help="run folder or checkpoint")
    to_hf.add_argument("out", type=path, help="folder to write")
    from_hf = commands.add_parser("from-hf", help="read a Hugging Face folder and compare logits")
    from_hf.add_argument("folder", type=path, help="folder with config.json and weights")
    from_hf.add_argument("out", type=path, help="run folder to write; give it to --load")
    inspect = commands.add_parser("inspect", help="what a checkpoint or a Hugging Face folder is")
    inspect.add_argument("run", type=path, help="run folder, checkpoint or Hugging Face folder")
    inspect.add_argument("--verify", action="store_true", help="read every byte of a checkpoint and compare checksums")
    for command in (to_hf, from_hf):
        command.add_argument(
            "--no-compare", action="store_true", help="do not compare logits, which needs memory for both models"
        )
    return parser


def convert(words: list[str] | None) -> int:
    """Do what the command line says; returns the exit code."""
    arguments = _parser().parse(words)
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    if arguments.command == "inspect":
        from megatron_distill.checkpoint.describe import describe

        print(describe(arguments.run, verify=arguments.verify))
        return 0
    if arguments.command == "from-hf":
        return import_folder(arguments.folder, arguments.out, compared=not arguments.no_compare)
    return export(arguments.run, arguments.out, compared=not arguments.no_compare)


def export(run: Path, out: Path, *, compared: bool = True) -> int:
    """Write `out`, if its logits are those of the checkpoint."""
    from megatron_distill.checkpoint.huggingface import export as write_folder

    checkpoint, verdict = find_checkpoint(run), _Verdict()
    write_folder(checkpoint, read_manifest(checkpoint), out, partial(verdict.compare, checkpoint) if compared else None)
    print(f"wrote {out}: {verdict.words}")
    return 0


def import_folder(folder: Path, out: Path, *, compared: bool = True) -> int:
    """Write `out`, if its logits are those of the Hugging Face folder."""
    from megatron_distill.checkpoint.from_hf import import_model

    verdict = _Verdict()
    import_model(folder, out, (lambda checkpoint: verdict.compare(checkpoint, folder)) if compared else None)
    print(f"wrote {out}: {verdict.words}")
    return 0


class _Verdict:
    """What a comparison came to."""

    def __init__(self) -> None:
        self.words = "logits not compared"

    def compare(self, checkpoint: Path, folder: Path) -> None:
        """Raise OutsideError unless a checkpoint and a Hugging Face folder are the same model."""
        from transformers.utils import logging

        from megatron_distill.checkpoint.comparison import compare

        logging.disable_progress_bar()
        with _single_world():
            self.words = compare(checkpoint, folder).check(folder)


def _single_world() -> AbstractContextManager[object]:
    from megatron_distill.config.environment import JobPlace
    from megatron_distill.config.run import Layout
    from megatron_distill.parallel.worlds import Role, open_world

    # A conversion is the work of one process, whatever started it: it waits for no ranks.
    role = Role("convert", Layout(tensor=1, pipeline=1, data=1, num_microbatches=1))
    return open_world((role,), place=JobPlace())


if __name__ == "__main__":
    sys.exit(main())
