"""Text that every Python installation carries, as JSON lines: the documentation and source of its standard library.

python tools/gather_text.py --output text.jsonl
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from megatron_distill.config.error import ConfigError
from megatron_distill.data.whole_file import written_whole

LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "encodings", "__pycache__"}


def main() -> int:
    """Write the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines to write")
    arguments = parser.parse_args()
    documents = list(gather(Path(sysconfig.get_path("stdlib"))))
    if not documents:
        print("gather_text.py: this Python carries no sources of its standard library", file=sys.stderr)
        return 2
    # Neighbours would make validation text unlike training text.
    random.Random(0).shuffle(documents)
    try:
        with written_whole(arguments.output) as file:
            for source, text in documents:
                file.write(json.dumps({"text": text, "source": source}).encode() + b"\n")
    except (ConfigError, OSError) as error:
        print(f"gather_text.py: {error}", file=sys.stderr)
        return 2
    size = arguments.output.stat().st_size
    print(f"{len(documents):,} documents, {size / 1e6:.1f} MB in {arguments.output}")
    return 0


def gather(library: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every documentation topic and module."""
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if LEFT_OUT & set(name.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
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
