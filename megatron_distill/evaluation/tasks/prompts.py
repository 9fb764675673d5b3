"""What the task files cannot say in a template. The prompts are those of lm-evaluation-harness 0.2 and 0.3, which the
papers' evaluation shares (arXiv:2305.14864, section 5)."""

from __future__ import annotations

import re
from typing import Any

from megatron_distill.evaluation.task_data import load

__all__ = ["load"]

Item = dict[str, Any]


def integer_label(item: Item) -> int:
    """A label that the data set writes as text."""
    return int(item["label"])


def lettered_answer(item: Item) -> int:
    """Which choice `answerKey` names: by a letter, or by a number from 1, whichever way the choices are labelled."""
    letters = [_letter(label) for label in item["choices"]["label"]]
    return letters.index(_letter(item["answerKey"]))


def _letter(label: str) -> str:
    return "ABCDE"[int(label) - 1] if label in "12345" else label


def hellaswag_context(item: Item) -> str:
    """What happens, and how it goes on."""
    return _without_markup(f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}")


def hellaswag_endings(item: Item) -> list[str]:
    """Four ways to go on."""
    return [_without_markup(ending) for ending in item["endings"]]


def _without_markup(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def winogrande_contexts(item: Item) -> list[str]:
    """The sentence up to the gap, with either option in it."""
    before = item["sentence"][: item["sentence"].index("_")]
    return [before + item["option1"], before + item["option2"]]


def winogrande_rest(item: Item) -> str:
    """The sentence after the gap: one continuation for two contexts."""
    return item["sentence"][item["sentence"].index("_") + 1 :].strip()


def winogrande_answer(item: Item) -> int:
    """Which option fits. The harness wants this in `doc_to_text` where contexts are the choice."""
    return int(item["answer"]) - 1


def sciq_context(item: Item) -> str:
    """Support, which may be empty, and question."""
    return f"{item['support']}\nQuestion: {item['question']}\nAnswer:".strip()


def copa_context(item: Item) -> str:
    """The premise, and what is asked of it."""
    joint = {"cause": "because", "effect": "therefore"}[item["question"]]
    return f"{item['premise'].strip()[:-1]} {joint}"


def copa_choices(item: Item) -> list[str]:
    """Both as the rest of a sentence."""
    return [choice[0].lower() + choice[1:] for choice in (item["choice1"], item["choice2"])]


def mrpc_context(item: Item) -> str:
    """Two sentences, their tokens put together again."""
    first, second = _joined(item["sentence1"]), _joined(item["sentence2"])
    question = "Do both sentences mean the same thing?"
    return f"Sentence 1: {first}\nSentence 2: {second}\nQuestion: {question}\nAnswer:"


def sst2_context(item: Item) -> str:
    """A sentence of a review."""
    return f"{_joined(item['sentence'])}\nQuestion: Is this sentence positive or negative?\nAnswer:"


def _joined(text: str) -> str:
    """Text whose tokens were set apart by spaces."""
    for apart, together in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(apart, together)
    return re.sub(r" (?=['.,])", "", text)
