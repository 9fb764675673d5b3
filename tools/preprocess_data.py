"""Text to tokens: JSON lines, gzip or plain text to Megatron's .bin/.idx.

python tools/preprocess_data.py --input 'c4/*.json.gz' --tokenizer tokenizer.json --output-prefix corpus
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from megatron_distill.config.error import ConfigError
from megatron_distill.data.corpus import expand, read_documents
from megatron_distill.data.indexed import IndexedWriter, token_dtype
from megatron_distill.data.tokenizer import Tokenizer, load_tokenizer

BLOCK_CHARACTERS = 4_000_000
"""Text tokenised at once: enough to keep all cores busy, little to hold."""


def main() -> int:
    """Write the corpus; returns the exit code."""
    arguments = parse()
    try:
        if arguments.workers is not None and arguments.workers < 1:
            raise ConfigError(f"--workers {arguments.workers} must be at least 1")
        tokenizer = load_tokenizer(arguments.tokenizer, arguments.workers)
        paths = expand(arguments.input)
        with IndexedWriter(arguments.output_prefix, token_dtype(tokenizer.vocab_size)) as writer:
            write(writer, tokenizer, paths, arguments)
            if writer.num_tokens == 0:
                raise ConfigError(f"{', '.join(arguments.input)} hold no text")
    except (ConfigError, OSError) as error:
        print(f"\npreprocess_data.py: {error}; nothing was written", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True, help="text files or globs: .jsonl, .json.gz, .txt")
    parser.add_argument("--output-prefix", required=True, help="PREFIX.bin and PREFIX.idx are written")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json, a folder with one, or a .model file")
    parser.add_argument("--text-key", default="text", help="field of a JSON line that holds the text")
    parser.add_argument(
        "--append-eod", action=argparse.BooleanOptionalAction, default=True, help="end each document with a token"
    )
    parser.add_argument("--workers", type=int, default=None, help="threads of the tokenizer; all cores if absent")
    return parser.parse_args()


def write(writer: IndexedWriter, tokenizer: Tokenizer, paths: list[Path], arguments: argparse.Namespace) -> None:
    """Tokenise block after block, in order."""
    end = [tokenizer.eod_id] if arguments.append_eod else []
    begun, characters, documents = time.perf_counter(), 0, 0
    live = sys.stdout.isatty()
    for block in blocks(text for path in paths for text in read_documents(path, arguments.text_key)):
        for ids in tokenizer.encode_batch(block):
            writer.add_document(ids + end)
        characters += sum(map(len, block))
        documents += len(block)
        if live:
            print(f"\r\033[K{summary(documents, characters, writer.num_tokens, begun)}", end="", flush=True)
    print(("\r\033[K" if live else "") + summary(documents, characters, writer.num_tokens, begun), flush=True)


def blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    """Documents in lists of about BLOCK_CHARACTERS."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def summary(documents: int, characters: int, tokens: int, begun: float) -> str:
    """Progress in one line."""
    seconds = max(time.perf_counter() - begun, 1e-9)
    return (
        f"{documents:,} documents, {tokens:,} tokens | {characters / 1e6 / seconds:.1f} MB/s | "
        f"{tokens / seconds:,.0f} tokens/s"
    )


if __name__ == "__main__":
    sys.exit(main())
