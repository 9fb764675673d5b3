"""Whether a checkpoint and a Hugging Face folder are the same model: their logits and their tokens, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_distill.config.error import ConfigError, OutsideError
from megatron_distill.config.model import ModelShape
from megatron_distill.config.run import Layout
from megatron_distill.data.tokenizer import load_tokenizer
from megatron_distill.models.build import BuildOptions, build_decoder
from megatron_distill.models.families import find_exported
from megatron_distill.parallel import device

from .huggingface import load_exported
from .manifest import Manifest, read_manifest
from .native import load_checkpoint
from .tokenizer_files import find_tokenizer

TEXT = """The river rises in a marsh below two hills, and for its first day's walk nobody would call it
more than a brook. Then, within an hour, three others join it: one brown with peat, one white with chalk, and one so
cold that the fish keep to the far bank until the water has mixed. In 1874 a bridge was built here; it cost 3,200 pounds
and lasted nine years.
"""
HOSTILE_TEXTS = (
    *(TEXT, "", " ", "  two  spaces  ", "\ttab\r\nline end\n\n\n", "don't WE'LL I'm", "1234567890 3.14 1,000,000"),
    *(
        "naïve café — “quoted” … €5",
        "日本語のテキスト 中文 한국어",
        "עברית العربية हिन्दी",
        "🙂👩‍👩‍👧 e\u0301 \u200b\u00a0",
    ),
    *("def f(x):\n    return {'a': [1, 2]}  # \\n", "▁Ġ##", "a" * 300),
)
"""Texts in which tokenizers differ where one of them has been read wrongly."""
TOLERANCE = 3e-5
"""Largest difference of fp32 logits, relative to the largest logit, that is taken for rounding: the two programs add in
other orders. It is 1e-6 to 2e-6 for the models of benchmarks/parity.py and for real ones of five layers, and does not
depend on the scale of the logits; another activation, norm epsilon or rotary base gives 1e-3 and more."""
_SHORT, _LONG = 64, 512
"""Tokens of the rows that are compared."""


@dataclass(frozen=True)
class Comparison:
    """What was found."""

    difference: float
    """Largest absolute difference of the logits."""
    largest: float
    """Largest absolute value of them."""
    tokens: int
    """Of the longest sequence compared."""
    on_text: bool
    """Whether a part of them was text, and not all drawn at random."""
    shape: ModelShape
    other_tokens: str | None
    """A text that the two tokenizers cut in different tokens, None if there is none or there are no tokenizers."""

    @property
    def limit(self) -> float:
        """Largest difference that is rounding."""
        return TOLERANCE * self.largest

    def check(self, source: object) -> str:
        """What was found, in words; `source` is what was converted.

        Raises:
            OutsideError: the two are not the same model.
        """
        size = (
            f"largest difference {self.difference:.2g} (limit {self.limit:.2g}, the largest logit {self.largest:.3g})"
        )
        if not self.difference <= self.limit:  # also where it is NaN
            raise OutsideError(f"{source}: logits NOT EQUAL, {size}; nothing was written")
        if self.other_tokens is not None:
            raise OutsideError(
                f"{source}: the tokenizer of transformers and the one of preprocess_data.py differ on the text "
                f"{self.other_tokens!r}; nothing was written (--no-compare writes it all the same)"
            )
        kind = "of text and at random" if self.on_text else "at random, without a tokenizer"
        window = self.shape.block.window if self.shape.block is not None else None
        bounded = f"; compared within the sliding window of {window}, beyond which nothing here reads" if window else ""
        return f"logits equal, {size}, {self.tokens} tokens {kind}{bounded}"


@torch.no_grad()
def compare(checkpoint: Path, exported: Path) -> Comparison:
    """Compare the logits of a checkpoint with those of a Hugging Face folder, and their tokenizers.

    On text, where there is a tokenizer, and on random tokens. Both compute in fp32, whatever the weights were saved in:
    bf16 would round away what there is to see. Needs a process group of one rank.

    Raises:
        OutsideError: transformers cannot load or run the folder.
    """
    manifest = read_manifest(checkpoint)
    shape = manifest.shape
    words, other = _tokens(checkpoint, manifest, exported)
    batches = [ids.to(device.current()) for ids in _batches(words, shape)]
    expected = _logits_of_transformers(exported, shape, batches)  # before ours are, so that one model is in memory
    options = BuildOptions(dtype=getattr(torch, manifest.dtype), attention_backend="sdpa")
    ours = build_decoder(shape, manifest.layers, Layout(tensor=1, pipeline=1, data=1, num_microbatches=1), options)
    load_checkpoint(checkpoint, ours, None)
    ours.float()
    difference = largest = 0.0
    for ids, wanted in zip(batches, expected, strict=True):
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        # Rows that pad our vocabulary are not in every export.
        found = ours(ids, positions, None)[..., : wanted.shape[-1]]
        difference = _larger(difference, float((found - wanted).abs().max()))
        largest = _larger(largest, float(wanted.abs().max()))
    return Comparison(difference, largest, batches[-1].shape[1], bool(words), shape, other)


def _logits_of_transformers(folder: Path, shape: ModelShape, batches: list[Tensor]) -> list[Tensor]:
    try:
        model = load_exported(folder, find_exported(shape), dtype=torch.float32)
        model.to(device.current()).eval()
        return [model(ids).logits for ids in batches]
    except Exception as error:  # transformers raises what the file at fault makes it raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OutsideError(
            f"transformers cannot load or run {folder} ({reason[:300]}); nothing was written (--no-compare writes it "
            "all the same)"
        ) from error


def _larger(a: float, b: float) -> float:
    """The larger one; NaN if one is."""
    return b if b != b or b > a else a


def _batches(words: list[int], shape: ModelShape) -> list[Tensor]:
    """[2, 64] of text and at random, and [1, 512] at random, each as far as the model reads."""
    generator = torch.Generator().manual_seed(0)
    short, long = (min(tokens, shape.context_length) for tokens in (_SHORT, _LONG))
    ids = torch.randint(0, shape.vocab_size, (2, short), generator=generator)
    ids[0, : len(words)] = torch.tensor(words[:short], dtype=torch.int64)
    return [ids] if long == short else [ids, torch.randint(0, shape.vocab_size, (1, long), generator=generator)]


def _tokens(checkpoint: Path, manifest: Manifest, exported: Path) -> tuple[list[int], str | None]:
    """At most 64 tokens of TEXT, none if there is no tokenizer of this vocabulary, and a text in which the tokenizers
    of both sides differ."""
    path = find_tokenizer(checkpoint, manifest)
    if path is None:
        return [], None
    try:
        ours = load_tokenizer(path)
    except ConfigError:  # transformers knows more kinds of tokenizers than we do
        return [], None
    words = ours.encode_batch([TEXT])[0][:_SHORT]
    rows = manifest.shape.vocab_size
    return words if max(words, default=0) < rows else [], _first_difference(ours, exported)


def _first_difference(ours: Any, exported: Path) -> str | None:
    from .inference import load_folder_tokenizer

    theirs = load_folder_tokenizer(exported)
    special = ours.special_tokens()
    texts = [text for text in HOSTILE_TEXTS if not any(token in text for token in special)]
    for text, ids in zip(texts, ours.encode_batch(texts), strict=True):
        if theirs(text, add_special_tokens=False)["input_ids"] != list(ids):
            return text
    return None
