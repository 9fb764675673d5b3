"""ROUGE-L of answers to instructions, by the protocol of MiniLLM and DistiLLM (arXiv:2306.08543, arXiv:2402.03898).

Answers are drawn at temperature 1 with five seeds, at most 256 tokens after at most 256 of prompt, no six tokens twice
in a row. The figure is the F-measure of the longest common subsequence with Porter stemming, the largest over the
references, times 100; its mean over examples, and of that the mean and standard deviation over the seeds.
"""

from __future__ import annotations

import re
import statistics
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.data.prepare.compressed import Damaged
from megatron_distill.data.prepare.corpus import BadLine, is_blank, row_of
from megatron_distill.data.prepare.instructions import prompt_of
from megatron_distill.data.prepare.pieces import Piece, read_blocks

from .results import Score

SEEDS = (10, 20, 30, 40, 50)
PROMPT_TOKENS = 256
NEW_TOKENS = 256
NO_REPEAT = 6


@dataclass(frozen=True)
class Example:
    """What is asked, and what would be right."""

    prompt: str
    references: tuple[str, ...]


def read_examples(path: Path) -> list[Example]:
    """Examples of JSON lines with `output`, a text or several, and `prompt` or `instruction` and perhaps `input`.

    Raises:
        ConfigError: no such file, a line without these, or no line.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file of instructions {path}")
    found: list[Example] = []
    number = 0
    try:
        for block in read_blocks(Piece.whole(path)):
            for number, line in enumerate(block.lines, block.first_line):  # noqa: B007 - named below
                if not is_blank(line):
                    found.append(_example(row_of(line)))
    except Damaged as error:
        raise ConfigError(f"{path} is damaged after line {number}: {error}") from error
    except BadLine as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error
    if not found:
        raise ConfigError(f"{path} holds no example")
    return found


def _example(row: dict[str, Any]) -> Example:
    output = row.get("output", row.get("response"))
    references = (output,) if isinstance(output, str) else tuple(output) if isinstance(output, list) else ()
    if not references or not all(isinstance(text, str) for text in references):
        raise BadLine("no reference in 'output': it must be a text or a list of them")
    prompt = row.get("prompt")
    return Example(prompt if isinstance(prompt, str) else prompt_of(row), references)


def evaluate(
    examples: Sequence[Example], answer: Callable[[int], list[str]], seeds: Sequence[int] = SEEDS
) -> dict[str, Score]:
    """Scores "rouge_l" and "exact_match", in percent; `answer` gives the answers to all examples with a seed.

    The standard error is the standard deviation over the seeds, as the papers print it.
    """
    rouge, exact = [], []
    for seed in seeds:
        pairs = list(zip(examples, answer(seed), strict=True))
        rouge.append(100 * statistics.fmean(rouge_l(text, example.references) for example, text in pairs))
        exact.append(100 * statistics.fmean(exact_match(text, example.references) for example, text in pairs))
    return {
        name: Score(
            metric="percent",
            value=statistics.fmean(values),
            stderr=statistics.stdev(values) if len(values) > 1 else None,
            items=len(examples),
            all={f"seed_{seed}": value for seed, value in zip(seeds, values, strict=True)},
        )
        for name, values in (("rouge_l", rouge), ("exact_match", exact))
    }


def rouge_l(text: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence, the largest over the references; 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return max(scorer.score(reference, text.strip())["rougeL"].fmeasure for reference in references)


def exact_match(text: str, references: Sequence[str]) -> float:
    """1 if the text is a reference but for case, punctuation and spaces."""
    return float(_plain(text) in {_plain(reference) for reference in references})


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(str.maketrans("", "", string.punctuation))).strip()
