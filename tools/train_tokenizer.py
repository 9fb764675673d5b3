"""Train a tokenizer on text: byte-level BPE (tokenizer.json) or SentencePiece (.model).

python tools/train_tokenizer.py --input text.jsonl --vocab-size 16000 --output tokenizer.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from megatron_distill.config.arguments import ArgumentParser
from megatron_distill.config.error import ConfigError
from megatron_distill.config.limits import path, path_text, whole_number, word
from megatron_distill.config.program import run_program
from megatron_distill.data.prepare.corpus import expand, read_documents
from megatron_distill.data.tokenizer import load_tokenizer
from megatron_distill.data.whole_file import written_whole

END = "<|endoftext|>"
MOST_TOKENS = 10_000_000
"""Largest vocabulary: the library reserves memory for it before it reads any text."""


def main(arguments: list[str] | None = None) -> int:
    """Train and write; returns the exit code."""
    return run_program("train_tokenizer.py", lambda: train_tokenizer(arguments))


def train_tokenizer(words: list[str] | None) -> int:
    """Read the text, train and write; returns the exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input", type=path_text, nargs="+", required=True, help="text files or globs: .jsonl, .json.gz, .txt"
    )
    parser.add_argument(
        "--vocab-size",
        type=whole_number(least=320, most=MOST_TOKENS),
        required=True,
        help="tokens, special ones included; at least 320: 256 bytes and some words",
    )
    parser.add_argument(
        "--kind", choices=("bpe", "sentencepiece"), default="bpe", help="byte-level BPE, or SentencePiece"
    )
    parser.add_argument("--text-key", type=word, default="text", help="field of a JSON line that holds the text")
    parser.add_argument("--output", type=path, required=True, help="file to write: .json for bpe, .model otherwise")
    arguments = parser.parse(words)
    wanted = ".json" if arguments.kind == "bpe" else ".model"
    if arguments.output.suffix != wanted:
        raise ConfigError(f"--output {arguments.output} must end in {wanted} with --kind {arguments.kind}")
    _check_replaceable(arguments.output)
    sources = expand(arguments.input)
    texts = (text for source in sources for text in read_documents(source, arguments.text_key) if text.strip())
    first = next(texts, None)
    if first is None:
        raise ConfigError(f"{', '.join(arguments.input)} hold no text")
    train = train_bpe if arguments.kind == "bpe" else train_sentencepiece
    with written_whole(arguments.output) as file:
        size = train(chain([first], texts), arguments.vocab_size, file)
    print(f"{size:,} tokens in {arguments.output}")
    return 0


def _check_replaceable(output: Path) -> None:
    """Nothing, if the output is new or an older tokenizer. ConfigError if it is something else."""
    if output.is_file():
        try:
            load_tokenizer(output)
        except ConfigError as error:
            raise ConfigError(f"--output {output} is there and no tokenizer; give another, or remove it") from error


def train_bpe(texts: Iterator[str], vocab_size: int, file: BinaryIO) -> int:
    """Write byte-level BPE as GPT-2's, `<|endoftext|>` with id 0; returns the vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    file.write(tokenizer.to_str(pretty=True).encode())
    return tokenizer.get_vocab_size()


def train_sentencepiece(texts: Iterator[str], vocab_size: int, file: BinaryIO) -> int:
    """Write SentencePiece BPE with byte fallback; returns the vocabulary's size."""
    import sentencepiece

    failures: list[ConfigError] = []

    def lines() -> Iterator[str]:
        # The trainer reads sentences; lines are what it makes of documents anyway.
        try:
            yield from (line for text in texts for line in text.splitlines() if line.strip())
        except ConfigError as error:  # the library turns every error into a RuntimeError
            failures.append(error)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(),
            model_writer=file,
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from error
        reason = str(error).rpartition("] ")[2]  # what precedes is its source line and condition
        raise ConfigError(f"SentencePiece cannot make {vocab_size} tokens of this text: {reason}") from error
    return vocab_size


if __name__ == "__main__":
    sys.exit(main())
