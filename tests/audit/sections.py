"""The sections of the audit by name."""

from __future__ import annotations

from collections.abc import Callable

from . import corruptions, tokenizers, wrong_inputs
from .rows import Options, Row

SECTIONS: dict[str, Callable[[Options], list[Row]]] = {
    "tokenizers": tokenizers.run,
    "corruptions": corruptions.run,
    "wrong-inputs": wrong_inputs.run,
}
