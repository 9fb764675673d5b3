"""A tokenizer as GPT-2 publishes it: a vocabulary and a list of merges, each in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""The files' names at Hugging Face and at OpenAI."""
END = "<|endoftext|>"


def find(folder: Path) -> tuple[Path, Path] | None:
    """Vocabulary and merges in a folder, if they are there."""
    pairs = ((folder / vocabulary, folder / merges) for vocabulary, merges in NAMES)
    return next((pair for pair in pairs if pair[0].exists() and pair[1].exists()), None)


def read(vocabulary: Path, merges: Path) -> Tokenizer:
    """Byte-level BPE without a space before the first word, as GPT-2's own encoder cuts text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if END in json.loads(vocabulary.read_bytes()):
        tokenizer.add_special_tokens([END])
    return tokenizer
