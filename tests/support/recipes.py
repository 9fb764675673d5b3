"""What parts of a corpus are made by, in tests of the machinery around them."""

from __future__ import annotations

from megatron_distill.data.prepare.parts import Recipe


def recipe(tokenizer: str = "tokenizer.json") -> Recipe:
    """Texts of the field "text" to uint16 tokens, each with an end."""
    return Recipe(
        tokenizer=tokenizer,
        tokenizer_checksum="1234",
        text_key="text",
        instructions=False,
        max_prompt_tokens=0,
        skip_bad_lines=False,
        dtype="uint16",
        bos=-1,
        eod=0,
    )
