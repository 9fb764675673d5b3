"""Text that every Python installation carries, as JSON lines: the documentation and source of its standard library.

python tools/gather_text.py --output text.jsonl
"""

from __future__ import annotations

import ast
import json
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import path
from megatron_distill.config.program import run_program
from megatron_distill.data.prepare.corpus import BadLine, row_of
from megatron_distill.data.whole_file import written_whole

LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "encodings", "__pycache__"}


def main(arguments: list[str] | None = None) -> int:
    """Write the file; returns the exit code."""
    return run_program("gather_text.py", lambda: gather_text(arguments))


def gather_text(words: list[str] | None) -> int:
    """Read the library and write its texts; returns the exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=path, required=True, help="JSON lines to write")
    arguments = parser.parse(words)
    _check_replaceable(arguments.output)
    documents = list(gather(Path(sysconfig.get_path("stdlib"))))
    if not documents:
        raise ConfigError("this Python carries no sources of its standard library")
    # Neighbours would make validation text unlike training text.
    random.Random(0).shuffle(documents)
    size = 0
    with written_whole(arguments.output) as file:
        for source, text in documents:
            size += file.write(json.dumps({"text": text, "source": source}).encode() + b"\n")
    print(f"{len(documents):,} documents, {size / 1e6:.1f} MB in {arguments.output}")
    return 0


def _check_replaceable(output: Path) -> None:
    """Nothing, if the output is new or text that was gathered before. ConfigError if it is something else."""
    if output.is_file() and output.stat().st_size:
        with output.open("rb") as file:
            first = file.readline()
        try:
            row_of(first)["source"]
        except (BadLine, KeyError) as error:
            raise ConfigError(f"--output {output} is there and no gathered text; give another, or remove it") from error


def gather(library: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every documentation topic and module."""
    for module in sorted(library.rglob("*.py")):
        name = module.relative_to(library)
        if LEFT_OUT & set(name.parts):
            continue
        try:
            text = module.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if name.parts[0] == "pydoc_data":
            yield from topics(text)
        elif len(text) > 200:
            yield str(name), text


def topics(source: str) -> Iterator[tuple[str, str]]:
    """The language reference that `help()` shows: strings of a dictionary."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    yield f"help({key.value})", str(value.value)


if __name__ == "__main__":
    sys.exit(main())
