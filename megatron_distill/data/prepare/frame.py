"""The tokens that are written before and after each document."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_distill.config.error import ConfigError

from ..tokenizer import Tokenizer

NONE = -1
"""Stands for no token."""


@dataclass(frozen=True)
class Frame:
    """The begin token and the end token of every document, NONE where there is none."""

    bos: int
    eod: int

    def describe(self, tokenizer: Tokenizer) -> str:
        """What each document begins and ends with, for the last lines of output."""
        said = [
            f"{verb} {tokenizer.id_to_token(token)} ({token})"
            for verb, token in (("begins with", self.bos), ("ends with", self.eod))
            if token != NONE
        ]
        return f"each document {' and '.join(said)}" if said else "documents have neither a begin nor an end token"


def frame_of(tokenizer: Tokenizer, *, prepend_bos: bool | None, append_eod: bool, eod_token: str | None) -> Frame:
    """The frame that the flags ask for; by default the tokenizer's own begin token and the end token it names.

    Raises:
        ConfigError: a token that the tokenizer does not have.
    """
    return Frame(_bos(tokenizer, prepend_bos), _eod(tokenizer, append_eod, eod_token))


def _bos(tokenizer: Tokenizer, prepend_bos: bool | None) -> int:
    prefix = tokenizer.prefix()
    if prepend_bos is False or (prepend_bos is None and not prefix):
        return NONE
    if len(prefix) > 1:
        names = " ".join(map(tokenizer.id_to_token, prefix))
        raise ConfigError(
            f"{tokenizer.path} begins every text with {len(prefix)} tokens ({names}), and a document can begin with "
            "one; give --no-prepend-bos"
        )
    found = prefix[0] if prefix else tokenizer.named_bos_id
    if found is None:
        raise ConfigError(f"{tokenizer.path} names no token that begins a text; leave --prepend-bos out")
    return found


def _eod(tokenizer: Tokenizer, append_eod: bool, eod_token: str | None) -> int:
    if not append_eod:
        if eod_token is not None:
            raise ConfigError(f"--eod-token {eod_token} and --no-append-eod contradict each other; give one of them")
        return NONE
    if eod_token is None:
        return tokenizer.eod_id
    # A number is an id even though most vocabularies have the digits as tokens: no digit ends a document.
    is_id = eod_token.isascii() and eod_token.isdigit()
    found = int(eod_token[:12]) if is_id else tokenizer.token_to_id(eod_token)
    if found is None or found >= tokenizer.vocab_size:
        raise ConfigError(
            f"--eod-token {eod_token} must be a token of {tokenizer.path}, or an id below its {tokenizer.vocab_size}"
        )
    return found
