"""What a score depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from megatron_distill.evaluation.items import file_of
from megatron_distill.evaluation.request import Evaluation
from megatron_distill.evaluation.results import without_paths
from megatron_distill.evaluation.suites import PAPER

TASKS = ("piqa", "blimp_drop_argument", "perplexity", "rouge", "lambada_openai")


@pytest.fixture
def asked(tmp_path: Path) -> Evaluation:
    for name in ("piqa_validation.jsonl", "drop_argument.jsonl", "text.txt", "instructions.jsonl"):
        (tmp_path / name).write_text(name)
    files = {"data": tmp_path, "text": tmp_path / "text.txt", "instructions": tmp_path / "instructions.jsonl"}
    return Evaluation(model=Path("run"), tasks=TASKS, **files)


def changed(one: Evaluation, other: Evaluation, *tokenizers: str) -> list[str]:
    """The tasks whose scores are others."""
    first, last = (tokenizers * 2 or ("a", "a"))[:2]
    return [
        task
        for task in TASKS
        if without_paths(one.settings_of(task, first)) != without_paths(other.settings_of(task, last))
    ]


def test_the_content_of_files_counts_for_the_tasks_that_read_them(asked: Evaluation, tmp_path: Path) -> None:
    before = {task: asked.settings_of(task) for task in TASKS}
    for name, tasks in {
        "piqa_validation.jsonl": ["piqa"],
        "drop_argument.jsonl": ["blimp_drop_argument"],
        "text.txt": ["perplexity"],
        "instructions.jsonl": ["rouge"],
        "more.jsonl": [],
    }.items():
        (tmp_path / name).write_text("other items")
        now = {task: asked.settings_of(task) for task in TASKS}
        assert [task for task in TASKS if now[task] != before[task]] == tasks
        before = now


def test_the_place_of_files_does_not_count(asked: Evaluation, tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes((tmp_path / "text.txt").read_bytes())
    assert changed(asked, replace(asked, text=copy)) == []


def test_flags_count_for_the_tasks_that_they_concern(asked: Evaluation) -> None:
    assert changed(asked, replace(asked, limit=5)) == ["piqa", "blimp_drop_argument", "rouge", "lambada_openai"]
    assert changed(asked, replace(asked, max_tokens=5)) == ["perplexity"]
    assert changed(asked, replace(asked, seeds=(1,))) == ["rouge"]
    for option in ({"seq_length": 5}, {"precision": "bf16"}, {"backend": "hf"}):
        assert changed(asked, replace(asked, **option)) == list(TASKS)
    assert changed(asked, replace(asked, batch_tokens=5, tensor=2)) == []
    assert changed(asked, asked, "of a tokenizer", "of another") == list(TASKS)


def test_files_that_are_missing_are_for_their_reader_to_say(tmp_path: Path) -> None:
    asked = Evaluation(model=Path("run"), tasks=TASKS, data=tmp_path / "none", text=tmp_path / "no.txt")
    assert asked.settings_of("perplexity")["text"]["sha256"] is None
    assert asked.settings_of("piqa")["data"]["sha256"] is None


def test_names_of_files() -> None:
    assert [file_of(name) for name in PAPER] == [f"{name}_validation" for name in PAPER]
    assert file_of("blimp_supplement_hypernym") == "hypernym"
    assert file_of("blimp_../../secret") is file_of("lambada_openai") is None
