"""The tokens that begin and end a document, as the files beside a tokenizer name them.

A Hugging Face folder says them in tokenizer_config.json or special_tokens_map.json (names), in config.json and
generation_config.json (ids). These files count where the tokenizer's file has one of the names that Hugging Face
reserves for a folder's only tokenizer: `mine.json` in somebody's folder has its own special tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json

OF_A_FOLDER = (
    *("tokenizer.json", "vocab.json", "encoder.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
)
"""Names of a tokenizer's file that the configuration beside it describes."""
USUAL_ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>")
"""Tokens that end a document where nothing says which one does; the first that is known."""

NAMES = ("tokenizer_config.json", "special_tokens_map.json")
"""Files that have the texts of special tokens."""
IDS = ("config.json", "generation_config.json")
"""Files that have their ids."""

TokenId = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
"""In a file."""
Token = str | dict[str, Any]
"""A token's text, or an object that has it as `content`."""


@dataclass(frozen=True)
class _Names:
    """tokenizer_config.json and special_tokens_map.json."""

    bos_token: Token | None = None
    eos_token: Token | None = None
    add_bos_token: bool | None = None


@dataclass(frozen=True)
class _Ids:
    """config.json and generation_config.json."""

    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None


Kind = TypeVar("Kind", _Names, _Ids)


@dataclass(frozen=True)
class SpecialTokens:
    """Reads, when it is asked, the files that describe the tokenizer at `path`.

    `token_to_id` is the tokenizer's vocabulary.
    """

    path: Path
    token_to_id: Callable[[str], int | None]

    def named_eos(self) -> int | None:
        """The end token that the folder names, None if it names none.

        Raises:
            ConfigError: a damaged file, or a name that is not in the vocabulary.
        """
        for file, names in self._read(_Names, *NAMES):
            if names.eos_token:
                return self._id_of(names.eos_token, "eos_token", file)
        for _, ids in self._read(_Ids, *IDS):
            if (first := _first(ids.eos_token_id)) is not None:
                return first
        return None

    def named_bos(self) -> int | None:
        """The begin token that the folder names; the same."""
        for file, names in self._read(_Names, *NAMES):
            if names.bos_token:
                return self._id_of(names.bos_token, "bos_token", file)
        for _, ids in self._read(_Ids, *IDS):
            if (first := _first(ids.bos_token_id)) is not None:
                return first
        return None

    def adds_bos(self) -> bool:
        """Whether tokenizer_config.json wants a begin token; a tokenizer.json has a post-processor for that."""
        return any(names.add_bos_token for _, names in self._read(_Names, "tokenizer_config.json"))

    def usual_end(self) -> int | None:
        """The first of USUAL_ENDS that the vocabulary has."""
        return next((i for i in map(self.token_to_id, USUAL_ENDS) if i is not None), None)

    def no_end(self) -> ConfigError:
        """What to say where a tokenizer has no end token."""
        return ConfigError(
            f"{self.path} has no token that ends a document: no tokenizer_config.json or config.json names one, and it "
            f"has none of {', '.join(USUAL_ENDS)}; give --eod-token"
        )

    def _read(self, kind: type[Kind], *names: str) -> list[tuple[Path, Kind]]:
        return [(file, read_json(file, kind)) for file in files_beside(self.path, *names)]

    def _id_of(self, token: Token, key: str, file: Path) -> int:
        name = token if isinstance(token, str) else token.get("content")
        found = self.token_to_id(name) if isinstance(name, str) else None
        if found is None:
            raise ConfigError(f"{file} names the {key} {name!r}, which {self.path.name} does not have")
        return found


def files_beside(path: Path, *names: str) -> list[Path]:
    """Those of the files that describe the tokenizer's file at `path`, all of NAMES and IDS if no names are given."""
    files = (path.parent / name for name in names or (*NAMES, *IDS))
    return [file for file in files if file.is_file()] if path.name in OF_A_FOLDER else []


def _first(ids: int | list[int] | None) -> int | None:
    """A model may have several end tokens; the first one ends documents, the others turns of a chat."""
    if isinstance(ids, list):
        return ids[0] if ids else None
    return ids
