"""The file of scores: what belongs to which weights, and what is never lost."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.evaluation.results import Results, Score
from megatron_distill.evaluation.score_file import FORMAT, add_scores, check_out, known, read_scores
from megatron_distill.evaluation.suites import PAPER
from tests.evaluation.corruptions import CORRUPTIONS, REWRITTEN

NAME, ONE, OTHER = "iter_0000020", "1" * 64, "2" * 64


def scored(
    value: float = 0.5, *, tasks: tuple[str, ...] = tuple(PAPER), weights: str = ONE, **settings: Any
) -> Results:
    found = Results("run", iteration=20, weights=weights)
    for task in tasks:
        found.take(task, {task: Score("acc", value, 0.03, 100)}, settings)
    return found


def values(path: Path, weights: str | None = ONE) -> dict[str, float | None]:
    entry = read_scores(path).of(NAME, weights)
    return {name: stored.value for name, stored in entry.scores.items()} if entry else {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluation.json"


def test_scores_of_one_model_come_together(path: Path) -> None:
    add_scores(path, NAME, scored(tasks=tuple(PAPER)[:-1]))
    add_scores(path, NAME, scored(tasks=("sst2",)))
    add_scores(path, "iter_0000040", scored(0.25, weights=OTHER))
    models = json.loads(path.read_text())["models"]
    assert set(models) == {NAME, "iter_0000040"}
    assert set(models[NAME]["scores"]) == set(PAPER)
    assert models[NAME]["averages"]["paper13"]["value"] == pytest.approx(0.5)


def test_weights_that_were_written_anew_inherit_nothing(path: Path) -> None:
    """A run that starts anew has its checkpoints under the names of the abandoned one's."""
    add_scores(path, NAME, scored(0.9, tasks=tuple(PAPER)[:-1]))
    assert known(path, NAME, OTHER, {"piqa": {}}) == {}
    add_scores(path, NAME, scored(0.1, tasks=("sst2",), weights=OTHER))
    entry = read_scores(path).of(NAME, OTHER)
    assert entry is not None and set(entry.scores) == {"sst2"} and entry.averages == {}
    assert len(values(path)) == 12 and values(path)["piqa"] == 0.9  # of the abandoned weights, for who wants them
    assert set(known(path, NAME, ONE, {"piqa": {}})) == {"piqa"}
    assert read_scores(path).of(NAME, "3" * 64) is None
    add_scores(path, NAME, scored(0.8, tasks=("copa",)))  # the first weights again
    assert set(values(path)) == {*tuple(PAPER)[:-1]} and values(path)["copa"] == 0.8
    assert len(read_scores(path).models) == 2


def test_a_second_text_stands_beside_the_first(path: Path) -> None:
    first, second = ({"instructions": {"path": "a.jsonl", "sha256": digest}} for digest in ("aa", "bb"))
    add_scores(path, NAME, scored(7.633, tasks=("rouge",), **first))
    add_scores(path, NAME, scored(3.911, tasks=("rouge",), **second))
    assert sorted(v for v in values(path).values() if v) == [3.911, 7.633]
    assert values(path)["rouge"] == 3.911
    for settings, value in ((first, 7.633), (second, 3.911)):
        assert known(path, NAME, ONE, {"rouge": settings})["rouge"].value == value
    add_scores(path, NAME, scored(7.7, tasks=("rouge",), **first))
    assert sorted(v for v in values(path).values() if v) == [3.911, 7.7]


def test_the_content_decides_and_not_the_path(path: Path) -> None:
    add_scores(path, NAME, scored(tasks=("rouge",), text={"path": "a", "sha256": "aa"}))
    assert known(path, NAME, ONE, {"rouge": {"text": {"path": "moved", "sha256": "aa"}}})
    assert not known(path, NAME, ONE, {"rouge": {"text": {"path": "a", "sha256": "bb"}}})


def test_a_task_with_scores_of_other_names(path: Path) -> None:
    found = Results("run", weights=ONE)
    found.take("perplexity", {name: Score("ppl", 9.0, None, 5) for name in ("perplexity", "bits_per_byte")}, {})
    add_scores(path, NAME, found)
    assert set(known(path, NAME, ONE, {"perplexity": {}})) == {"perplexity", "bits_per_byte"}


def test_a_file_of_format_1(path: Path) -> None:
    """Its scores do not say of which weights they are: they are read, not kept, and not mixed with others."""
    old = {"metric": "acc", "value": 0.7, "stderr": None, "items": 5, "all": {}, "settings": {"limit": None}}
    entry = {"model": "run", "iteration": 20, "scores": {"piqa": old}, "averages": {}, "failures": {}}
    path.write_text(json.dumps({"format": 1, "models": {NAME: entry}}))
    assert values(path, None) == values(path, ONE) == {"piqa": 0.7}
    assert known(path, NAME, ONE, {"piqa": {"limit": None}}) == {}
    add_scores(path, NAME, scored(0.2, tasks=("copa",)))
    assert values(path) == {"copa": 0.2}
    content = json.loads(path.read_text())
    assert content["format"] == FORMAT
    assert [e["scores"]["piqa"]["value"] for e in content["models"].values() if "piqa" in e["scores"]] == [0.7]


def test_numbers_that_are_none(path: Path) -> None:
    add_scores(path, NAME, scored(math.inf, tasks=("perplexity",)))
    assert (
        json.loads(path.read_text(), parse_constant=pytest.fail)["models"][NAME]["scores"]["perplexity"]["value"]
        is None
    )
    assert math.isnan(known(path, NAME, ONE, {"perplexity": {}})["perplexity"].value)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_damaged_file_is_set_aside_and_never_emptied(path: Path, name: str) -> None:
    add_scores(path, NAME, scored())
    CORRUPTIONS[name](path)
    damaged = path.read_bytes()
    check_out(path)
    assert known(path, NAME, ONE, {"piqa": {}}) == {}
    (said,) = add_scores(path, NAME, scored(0.1, tasks=("copa",)))
    aside = path.with_name("evaluation.json.damaged")
    assert aside.read_bytes() == damaged and str(aside) in said and "is damaged" in said
    assert values(path) == {"copa": 0.1}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_file_from_an_editor_is_read(path: Path, name: str) -> None:
    add_scores(path, NAME, scored())
    REWRITTEN[name](path)
    assert add_scores(path, NAME, scored(0.1, tasks=("copa",))) == []
    assert values(path)["piqa"] == 0.5 and values(path)["copa"] == 0.1


@pytest.mark.parametrize("content", ["my notes", "{}", '{"format": 1}', '{"format": 1, "num_tokens": 5}', "[1]"])
def test_a_file_of_something_else_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ConfigError, match="holds no scores, and is not replaced"):
        check_out(path)
    with pytest.raises(ConfigError):
        add_scores(path, NAME, scored())
    assert path.read_text() == content and [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_file_may_be_written(tmp_path: Path) -> None:
    """As mktemp makes it."""
    path = tmp_path / "scores"
    path.touch()
    check_out(path)
    assert add_scores(path, NAME, scored()) == [] and values(path)["piqa"] == 0.5


def test_a_newer_format_is_refused_and_stays(path: Path) -> None:
    path.write_text('{"format": 3, "models": {}}')
    for attempt in (check_out, lambda path: add_scores(path, NAME, scored())):
        with pytest.raises(ConfigError, match="has format 3; this version reads 1 and 2"):
            attempt(path)
    assert path.read_text() == '{"format": 3, "models": {}}'


def test_a_device_is_written_to(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    check_out(link)
    assert add_scores(link, NAME, scored()) == [] and link.is_symlink()


def test_writers_at_once_lose_nothing(path: Path) -> None:
    def write(number: int) -> None:
        add_scores(path, f"iter_{number:07d}", scored(weights=f"{number:064d}"))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_scores(path).models) == 12
