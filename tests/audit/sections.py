"""The sections of the audit by name."""

from __future__ import annotations

from collections.abc import Callable

from . import corruptions, layouts, pickles, tokenizers, wrong_inputs
from .rows import Options, Row

SECTIONS: dict[str, Callable[[Options], list[Row]]] = {
    "layouts": layouts.run,
    "pickles": pickles.run,
    "tokenizers": tokenizers.run,
    "wrong-inputs": wrong_inputs.run,
    "corruptions": corruptions.run,
}
