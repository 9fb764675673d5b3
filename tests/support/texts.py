"""Invented text, the same every time."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = (
    "the a layer model of half its size tokens and loss step learns to from with pruned again more less never until "
    "three seventeen Größe naïve 日本語 модель def return self.weight + = ( ) -> 0.5 1024 # TODO , . ; : ! ?"
)


def write_text(path: Path, *, documents: int = 60, words: int = 80, seed: int = 0) -> Path:
    """JSON lines with a field "text"; returns the path."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(documents):
            chosen = (generator.choice(WORDS.split()) + generator.choice(("", "", "", "\n", " ")) for _ in range(words))
            file.write(json.dumps({"text": f"{number} " + " ".join(chosen), "url": f"x/{number}"}) + "\n")
    return path
