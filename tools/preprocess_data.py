"""Text to tokens: JSON lines, gzip, Zstandard or plain text to Megatron's .bin/.idx.

python tools/preprocess_data.py --input 'c4/*.json.gz' --tokenizer tokenizer.json --output-prefix corpus

Killed at any moment, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import LONGEST, path_text, whole_number, word
from megatron_distill.config.program import STOPPED, run_program, say
from megatron_distill.data.prepare.encode import FAST
from megatron_distill.data.prepare.outcome import Outcome
from megatron_distill.data.prepare.preprocess import Request, preprocess

NAME = "preprocess_data.py"


def main(arguments: list[str] | None = None) -> int:
    """Write the corpus; returns the exit code."""
    return run_program(NAME, lambda: write_corpus(parse(arguments)))


def write_corpus(request: Request) -> int:
    """Write the corpus and say who made the ids; returns the exit code."""
    try:
        outcome = preprocess(request)
    except (ConfigError, OSError) as error:
        print(file=sys.stderr)
        say(NAME, f"{error}; {what_is_left(request)}")
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        say(NAME, f"stopped; {what_is_left(request)}")
        return STOPPED
    tell(outcome)
    return 0


def parse(words: list[str] | None = None) -> Request:
    """The command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input",
        type=path_text,
        nargs="+",
        required=True,
        help="files or globs: .jsonl, .json.gz, .json.zst, .txt",
    )
    parser.add_argument("--output-prefix", type=path_text, required=True, help="PREFIX.bin and PREFIX.idx are written")
    parser.add_argument(
        "--tokenizer",
        type=path_text,
        required=True,
        help="tokenizer.json, a folder with one or with GPT-2's files, or a .model file",
    )
    parser.add_argument("--text-key", type=word, default="text", help="field of a JSON line that holds the text")
    parser.add_argument(
        "--append-eod", action=argparse.BooleanOptionalAction, default=True, help="end each document with a token"
    )
    parser.add_argument(
        "--eod-token",
        type=word,
        metavar="NAME_OR_ID",
        help="the token that ends a document, if not the one the tokenizer names",
    )
    parser.add_argument(
        "--prepend-bos",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="begin each document with a token; if absent, as the tokenizer's post-processor does it",
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="lines of instruction, input and output become prompts and responses",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=whole_number(least=1, most=LONGEST),
        default=256,
        help="longer prompts of --instructions keep their first tokens",
    )
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="what to do with a bad line")
    parser.add_argument(
        "--workers", type=whole_number(least=1, most=4096), default=None, help="cores to use; all if absent"
    )
    arguments = parser.parse(words)
    return Request(inputs=arguments.input, **{k: v for k, v in vars(arguments).items() if k != "input"})


def what_is_left(request: Request) -> str:
    """What an attempt that failed leaves behind."""
    num_parts = len(list(Path(f"{request.output_prefix}.parts").glob("[0-9]*.json")))
    if not num_parts:
        return "nothing was written"
    return f"{num_parts} finished parts stay in {request.output_prefix}.parts, and the same command goes on from them"


def tell(outcome: Outcome) -> None:
    """Who made the ids, and what was left out."""
    for engine, count in outcome.engines.items():
        parts = f"{count} part{'s' * (count != 1)}"
        if engine == FAST:
            print(f"{parts} by gigatoken, equal to the tokenizer's own ids in {outcome.num_compared} samples")
        else:
            print(f"{parts} by the tokenizer's own library, many times slower: {engine}")
    print(outcome.frame)
    if outcome.num_skipped:
        print(f"{outcome.num_skipped:,} bad lines were left out, the first of them:", file=sys.stderr)
        print("\n".join(outcome.skipped), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
