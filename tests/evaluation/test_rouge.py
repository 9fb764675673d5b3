"""ROUGE-L by the protocol, on texts whose longest common subsequence one can see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.evaluation.rouge import SEEDS, Example, evaluate, exact_match, read_examples, rouge_l


@pytest.mark.parametrize(
    ("text", "references", "wanted"),
    [
        ("the cat sat", ("the cat sat",), 1.0),
        ("  The cats sitting!\n", ("the cat sit",), 1.0),  # stems, case, punctuation
        ("the dog sat", ("the cat sat",), 2 / 3),
        ("a b c d", ("a c",), 2 * (2 / 4) * 1 / (2 / 4 + 1)),  # F of precision 1/2 and recall 1
        ("sat cat the", ("the cat sat",), 1 / 3),  # order counts
        ("the dog", ("a bird", "the dog", "the cat"), 1.0),  # the best reference
        ("", ("the cat",), 0.0),
    ],
)
def test_rouge_l(text: str, references: tuple[str, ...], wanted: float) -> None:
    assert rouge_l(text, references) == pytest.approx(wanted)


def test_exact_match_sees_words_only() -> None:
    assert exact_match("The  Cat, sat.", ("a dog", "the cat sat")) == 1
    assert exact_match("The cat sits", ("the cat sat",)) == 0


def test_mean_and_deviation_over_seeds() -> None:
    examples = [Example("p", ("yes",)), Example("q", ("no",))]
    said = {10: ["yes", "no"], 20: ["yes", "maybe"], 30: ["x", "y"]}
    found = evaluate(examples, said.__getitem__, (10, 20, 30))
    assert found["rouge_l"].value == pytest.approx(50)
    assert found["rouge_l"].stderr == pytest.approx(50)
    assert found["rouge_l"].all == {"seed_10": 100, "seed_20": 50, "seed_30": 0}
    assert SEEDS == (10, 20, 30, 40, 50)


def test_examples(tmp_path: Path) -> None:
    rows = [{"prompt": "P", "output": "a"}, {"instruction": "Do {it}", "input": "x", "output": ["a", "b"]}]
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_examples(path)
    assert first == Example("P", ("a",))
    assert "### Instruction:\nDo {it}\n\n### Input:\nx\n\n### Response:\n" in second.prompt
    assert second.references == ("a", "b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no example"),
        ('{"prompt": "P"}\n', "line 1: no reference in 'output'"),
        ('{"output": "a"}\n', "line 1: no 'instruction'"),
        ('{"prompt": "P", "output": []}\n', "line 1: no reference"),
        ("[", "line 1: not JSON"),
    ],
)
def test_examples_that_are_none(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        read_examples(path)
