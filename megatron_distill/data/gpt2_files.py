"""A tokenizer as GPT-2 publishes it: a vocabulary and a list of merges, each in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""The files' names at Hugging Face and at OpenAI."""
END = "<|endoftext|>"
_SPECIAL = re.compile(r"<.*>|\[.*\]|madeupword\d+", re.DOTALL)
"""Tokens that no merge makes: those that are special in GPT-2 and its kin, and OPT's padding."""


def find(folder: Path) -> tuple[Path, Path] | None:
    """Vocabulary and merges in a folder, if they are there."""
    pairs = ((folder / vocabulary, folder / merges) for vocabulary, merges in NAMES)
    return next((pair for pair in pairs if pair[0].exists() and pair[1].exists()), None)


def read(vocabulary: Path, merges: Path) -> Tokenizer:
    """Byte-level BPE without a space before the first word, as GPT-2's own encoder cuts text.

    Raises:
        ConfigError: the merges do not make the tokens of the vocabulary, as where a download was cut off.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    ids = read_json(vocabulary, dict[str, int])
    _check_complete(ids, vocabulary, merges)
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if END in ids:
        tokenizer.add_special_tokens([END])
    return tokenizer


def _check_complete(ids: dict[str, int], vocabulary: Path, merges: Path) -> None:
    try:
        lines = merges.read_text("utf-8").split("\n")
    except ValueError as error:
        raise ConfigError(f"{merges} is damaged: it is not UTF-8 ({error})") from error
    num_merges = sum(" " in line for line in lines if not line.startswith("#version"))
    if len(ids) - num_merges in (256, 257):  # a token for each byte and each merge, and perhaps one that ends a text
        return
    made = {line.replace(" ", "", 1) for line in lines if not line.startswith("#version")}
    unmade = [token for token in ids if len(token) > 1 and token not in made and not _SPECIAL.fullmatch(token)]
    if unmade:
        raise ConfigError(
            f"{merges} is cut off or of another tokenizer: no line of it makes {unmade[0]!r}, which is one of "
            f"{len(unmade):,} such tokens of {vocabulary.name}; download both again"
        )
