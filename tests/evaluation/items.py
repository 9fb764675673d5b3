"""Invented items of the thirteen tasks, in the format of the data sets, and what must be asked about the first one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

ITEMS: dict[str, list[dict[str, Any]]] = {
    "piqa": [
        {"goal": "dry a wet book", "sol1": "Boil it.", "sol2": "Put it near a fan.", "label": 1},
        {"goal": "open a nut", "sol1": "Crack it.", "sol2": "Sing to it.", "label": 0},
    ],
    "hellaswag": [
        {
            "activity_label": "Baking",
            "ctx_a": "A man stirs [step] dough.",
            "ctx_b": "he Then",
            "endings": ["eats  it.", "[sub] bakes it.", "flies.", "sings [title] loudly."],
            "label": "1",
        },
        {"activity_label": "Run", "ctx_a": "She runs.", "ctx_b": "", "endings": ["a", "b", "c", "d"], "label": "3"},
    ],
    "winogrande": [
        {"sentence": "Ann thanked Eve because _ had helped.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        {"sentence": "Tom is taller than Jim so _ hit his head.", "option1": "Tom", "option2": "Jim", "answer": "1"},
    ],
    "boolq": [
        {"passage": "Ice is frozen water.", "question": "is ice water", "label": 1},
        {"passage": "Milk is white.", "question": "is milk green", "label": 0},
    ],
    "openbookqa": [
        {
            "question_stem": "Plants need",
            "choices": {"text": ["light", "noise", "shoes", "paper"], "label": ["A", "B", "C", "D"]},
            "answerKey": "A",
        },
    ],
    "sciq": [
        {
            "support": "",
            "question": "What falls?",
            "distractor1": "sky",
            "distractor2": "sun",
            "distractor3": "moon",
            "correct_answer": "rain",
        },
        {
            "support": "Cells divide.",
            "question": "What divides?",
            "distractor1": "stones",
            "distractor2": "air",
            "distractor3": "rain",
            "correct_answer": "cells",
        },
    ],
    "arc_easy": [
        {
            "question": "Which is a fruit?",
            "choices": {"text": ["stone", "apple", "iron"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
        {
            "question": "Which is a metal?",
            "choices": {"text": ["wood", "milk", "iron"], "label": ["1", "2", "3"]},
            "answerKey": "3",
        },
    ],
    "arc_challenge": [
        {
            "question": "What do bees make?",
            "choices": {"text": ["honey", "salt", "glass"], "label": ["A", "B", "C"]},
            "answerKey": "1",
        },
    ],
    "copa": [
        {
            "premise": "The glass broke.",
            "question": "cause",
            "choice1": "It fell.",
            "choice2": "I slept.",
            "label": 0,
        },
        {"premise": "It rained.", "question": "effect", "choice1": "Dogs sang.", "choice2": "We got wet.", "label": 1},
    ],
    "rte": [
        {"sentence1": "A cat sat on a mat.", "sentence2": "A cat sat.", "label": 0},
        {"sentence1": "A dog ran.", "sentence2": "A cat ran.", "label": 1},
    ],
    "cb": [
        {"premise": "It might rain.", "hypothesis": "it rains", "label": 2},
        {"premise": "It rains.", "hypothesis": "it rains", "label": 0},
    ],
    "mrpc": [
        {"sentence1": "He did n't go ( home ) .", "sentence2": 'She said , " no " .', "label": 0},
        {"sentence1": "We won .", "sentence2": "Our side won .", "label": 1},
    ],
    "sst2": [{"sentence": "a fine , clever film ", "label": 1}, {"sentence": "dull .", "label": 0}],
}

ASKED: dict[str, tuple[list[tuple[str, str]], int]] = {
    "piqa": ([("Question: dry a wet book\nAnswer:", " Boil it."), ("", " Put it near a fan.")], 1),
    "hellaswag": (
        [
            ("Baking: A man stirs dough. He then", " eats it."),
            ("", "  bakes it."),
            ("", " flies."),
            ("", " sings. loudly."),
        ],
        1,
    ),
    "winogrande": (
        [("Ann thanked Eve because Ann", " had helped."), ("Ann thanked Eve because Eve", " had helped.")],
        1,
    ),
    "boolq": ([("Ice is frozen water.\nQuestion: is ice water?\nAnswer:", " no"), ("", " yes")], 1),
    "openbookqa": ([("Plants need", " light"), ("", " noise"), ("", " shoes"), ("", " paper")], 0),
    "sciq": ([("Question: What falls?\nAnswer:", " sky"), ("", " sun"), ("", " moon"), ("", " rain")], 3),
    "arc_easy": ([("Question: Which is a fruit?\nAnswer:", " stone"), ("", " apple"), ("", " iron")], 1),
    "arc_challenge": (
        [
            *[("Question: What do bees make?\nAnswer:", " honey"), ("", " salt"), ("", " glass")],
            *[("Answer:", " honey"), ("", " salt"), ("", " glass")],
        ],
        0,
    ),
    "copa": ([("The glass broke because", " it fell."), ("", " i slept.")], 0),
    "rte": ([("A cat sat on a mat.\nQuestion: A cat sat. True or False?\nAnswer:", " True"), ("", " False")], 0),
    "cb": (
        [
            ("It might rain.\nQuestion: it rains. True, False or Neither?\nAnswer:", " True"),
            *[("", " False"), ("", " Neither")],
        ],
        2,
    ),
    "mrpc": (
        [
            (
                'Sentence 1: He didn\'t go (home).\nSentence 2: She said,"no".\n'
                "Question: Do both sentences mean the same thing?\nAnswer:",
                " no",
            ),
            ("", " yes"),
        ],
        0,
    ),
    "sst2": (
        [
            ("a fine, clever film \nQuestion: Is this sentence positive or negative?\nAnswer:", " negative"),
            ("", " positive"),
        ],
        1,
    ),
}
"""Contexts and continuations of the first item ("": the context before), and the number of the right one."""


def write_items(folder: Path) -> Path:
    """A folder for --data, some of its files compressed and one folder down; returns it."""
    (folder / "more").mkdir(parents=True)
    for number, (name, items) in enumerate(ITEMS.items()):
        text = "".join(json.dumps(item) + "\n" for item in items)
        path = (folder, folder / "more")[number % 2] / f"{name}_validation.jsonl"
        if number % 3:
            path.write_text(text)
        else:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
    return folder
