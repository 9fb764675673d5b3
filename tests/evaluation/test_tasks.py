"""The papers' tasks: what is asked, and what the answers are worth."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM

from megatron_distill.evaluation.recorder import Recorder
from megatron_distill.evaluation.results import Results
from megatron_distill.evaluation.run_tasks import _load, run_tasks
from megatron_distill.evaluation.suites import AVERAGES, PAPER, expand
from tests.evaluation.items import ASKED, ITEMS, write_items


class Answering(LM):
    """A model whose log-likelihoods are what `answer` says to (context, continuation)."""

    def __init__(self, answer: Callable[[str, str], float]) -> None:
        super().__init__()
        self.answer = answer

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(self.answer(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise AssertionError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --data."""
    return write_items(tmp_path_factory.mktemp("data") / "items")


def pairs(task: Any, item: int) -> list[tuple[str, str]]:
    """What a task asks about one of its items."""
    task.build_all_requests(rank=0, world_size=1)
    return [request.args for request in task.instances if request.doc_id == item]


def right_ones(task: Any) -> set[tuple[str, str]]:
    """What a model that knows everything finds likely."""
    found = set()
    for number, item in enumerate(task.eval_docs):
        gold = task.doc_to_text(item) if task.multiple_input else task.doc_to_target(item)
        found.add(pairs(task, number)[gold])
    return found


@pytest.mark.parametrize("name", PAPER)
def test_what_is_asked(name: str, data: Path) -> None:
    asked, gold = ASKED[name]
    whole: list[tuple[str, str]] = []
    for context, continuation in asked:
        whole.append((context or whole[-1][0], continuation))
    task = _load(name, data)
    assert pairs(task, 0) == whole
    assert whole[gold] in right_ones(task)


def test_a_model_that_knows_everything_is_always_right(data: Path) -> None:
    right = set().union(*(right_ones(_load(name, data)) for name in PAPER))
    results = Results("oracle")
    # Sure of what is right, the more so the longer it is, so that no normalisation matters.
    model = Answering(lambda c, t: -0.001 * len(t) if (c, t) in right else -50.0 * len(t))
    run_tasks(model, expand(["paper13"]), Recorder(results), data=data)
    assert results.failures == {}
    assert {name: score.value for name, score in results.scores.items()} == dict.fromkeys(PAPER, 1.0)
    assert {name: score.items for name, score in results.scores.items()} == {n: len(i) for n, i in ITEMS.items()}
    assert {name: results.averages()[name].value for name in ("paper13", "paper12", "eight")} == dict.fromkeys(
        ("paper13", "paper12", "eight"), 1.0
    )
    wrong = Results("fool")
    fool = Answering(lambda c, t: -0.001 * len(t) if (c, t) not in right else -50.0 * len(t))
    run_tasks(fool, expand(["paper13"]), Recorder(wrong), data=data)
    assert {name: score.value for name, score in wrong.scores.items()} == dict.fromkeys(PAPER, 0.0)


@pytest.mark.parametrize(
    ("name", "normalised"),
    [(name, figure.metric == "acc_norm") for name, figure in PAPER.items() if name in ("piqa", "arc_easy", "boolq")],
)
def test_characters_count_where_the_papers_say_so(name: str, normalised: bool, data: Path) -> None:
    """By the sum the shorter answer wins, by the character the longer one."""
    results = Results("long-winded")
    run_tasks(Answering(lambda c, t: -1.0 - 0.01 * len(t)), [name], Recorder(results), data=data)
    task = _load(name, data)
    longest = [max(pairs(task, n), key=lambda p: len(p[1])) in right_ones(task) for n in range(len(ITEMS[name]))]
    shortest = [min(pairs(task, n), key=lambda p: len(p[1])) in right_ones(task) for n in range(len(ITEMS[name]))]
    wanted = longest if normalised else shortest
    assert results.scores[name].value == sum(wanted) / len(wanted)


def test_pmi_takes_off_what_is_likely_anyway(data: Path) -> None:
    """Salt is likely after any "Answer:", so that it is after the question too says little."""
    known = {
        ("Question: What do bees make?\nAnswer:", " honey"): -4.0,
        ("Question: What do bees make?\nAnswer:", " salt"): -2.0,
        ("Question: What do bees make?\nAnswer:", " glass"): -9.0,
        ("Answer:", " honey"): -7.0,
        ("Answer:", " salt"): -1.5,
        ("Answer:", " glass"): -9.5,
    }
    results = Results("salty")
    run_tasks(Answering(lambda c, t: known[c, t]), ["arc_challenge"], Recorder(results), data=data)
    score = results.scores["arc_challenge"]
    assert score.metric == "acc_pmi"
    # differences 3, -0.5, 0.5: honey, which is right. Quotients 0.57, 1.33, 0.95: salt. Sums: salt.
    assert score.all == {"acc": 0.0, "acc_norm": 0.0, "acc_pmi": 1.0, "acc_pmi_ratio": 0.0}


def test_f1_is_of_the_answer_yes(tmp_path: Path) -> None:
    items = [{"sentence1": f"{n}", "sentence2": "x", "label": label} for n, label in enumerate((1, 1, 1, 0, 0))]
    (tmp_path / "mrpc_validation.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    results = Results("half")
    said_yes = {"0", "1", "3"}
    model = Answering(lambda c, t: float((c.split()[2] in said_yes) == (t == " yes")))
    run_tasks(model, ["mrpc"], Recorder(results), data=tmp_path)
    assert results.scores["mrpc"].value == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert results.scores["mrpc"].all["acc"] == pytest.approx(3 / 5)
    assert results.scores["mrpc"].stderr is not None


def test_pairs_of_sentences(tmp_path: Path) -> None:
    good = [{"sentence_good": f"Ann {n} sees herself.", "sentence_bad": f"Ann {n} sees itself."} for n in range(4)]
    for name in ("anaphor_gender_agreement", "anaphor_number_agreement", "hypernym"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in good))
    names = ["blimp_anaphor_gender_agreement", "blimp_anaphor_number_agreement", "blimp_supplement_hypernym"]
    results = Results("grammarian")
    model = Answering(lambda c, t: float((c, t[:3], "herself" in t) == ("", "Ann", True) and " 3 " not in t))
    run_tasks(model, names, Recorder(results), data=tmp_path)
    assert results.failures == {}
    # A tie is for the first one, which is the good one.
    assert [results.scores[name].value for name in names] == [1.0] * 3
    assert results.averages()["blimp:anaphor_agreement"].value == 1.0
    assert "blimp" not in results.averages()


def test_standard_errors(tmp_path: Path) -> None:
    lines = [json.dumps(ITEMS["piqa"][0] | {"label": n % 4 == 0 and 1 or 0}) for n in range(40)]
    (tmp_path / "piqa_validation.jsonl").write_text("\n".join(lines))
    results = Results("second")
    run_tasks(Answering(lambda c, t: float("fan" in t)), ["piqa"], Recorder(results), data=tmp_path)
    score = results.scores["piqa"]
    assert (score.value, score.items) == (0.25, 40)
    assert score.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 39))


def test_suites_are_those_of_the_papers() -> None:
    assert len(expand(["paper13"])) == 13
    assert set(expand(["paper13"])) - set(expand(["paper12"])) == {"sst2"}
    assert len(expand(["eight"])) == 8
    assert len(expand(["blimp"])) == 67
    assert expand(["paper12", "sst2", "piqa"])[-1] == "sst2"
    assert len(AVERAGES["blimp:filler_gap"]) == 7


def test_what_is_wrong_with_the_data_keeps_no_other_task_from_running(data: Path, tmp_path: Path) -> None:
    folder = write_items(tmp_path / "items")
    (folder / "piqa_validation.jsonl").unlink(missing_ok=True)
    (folder / "piqa_validation.jsonl.gz").unlink(missing_ok=True)
    (folder / "more" / "hellaswag_validation.jsonl").write_text("\n")
    whole = gzip.compress(b"".join(json.dumps(item).encode() + b"\n" for item in ITEMS["boolq"] * 200))
    for path in folder.rglob("boolq*"):
        path.unlink()
    (folder / "boolq_validation.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    for path in folder.rglob("rte_*"):
        path.unlink()
    (folder / "rte_validation.jsonl").write_text('{"sentence1": "x", "sent\n')
    for path in folder.rglob("cb_*"):
        path.unlink()
    (folder / "cb_validation.jsonl").write_text('{"premise": "x", "label": 1}\n')
    results = Results("any")
    run_tasks(Answering(lambda c, t: 0.0), expand(["paper13"]), Recorder(results), data=folder)
    failed = results.failures
    assert set(failed) == {"piqa", "hellaswag", "boolq", "rte", "cb"}
    assert "has piqa_validation.jsonl" in failed["piqa"]
    assert failed["hellaswag"].endswith("hellaswag_validation.jsonl holds no item")
    assert "boolq_validation.jsonl.gz is damaged after line" in failed["boolq"]
    assert "rte_validation.jsonl, line 1: not JSON" in failed["rte"]
    assert "hypothesis" in failed["cb"]
    assert set(results.scores) == set(PAPER) - set(failed)
    assert "paper13" not in results.averages()


def test_a_file_is_no_task_and_its_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, names = tmp_path / "ran", []
    (tmp_path / "code.py").write_text(f"open({str(marker)!r}, 'w')\ndef items(x): return x\n")
    for name in ("evil.yaml", "evil"):
        (tmp_path / name).write_text("task: evil\ndataset_path: json\nprocess_docs: !function code.items\n")
        names.append(str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    results = Results("any")
    run_tasks(Answering(lambda c, t: 0.0), [*names, "evil.yaml", str(tmp_path), "."], Recorder(results))
    assert set(results.failures) == {*names, "evil.yaml", str(tmp_path), "."} and not results.scores
    assert all("has no task of this name, and files are not taken" in why for why in results.failures.values())
    assert not marker.exists()


@pytest.mark.parametrize(("name", "field"), [("piqa", "label"), ("sst2", "label"), ("copa", "label")])
def test_a_label_that_is_no_choice_is_refused(name: str, field: str, tmp_path: Path) -> None:
    """As in the published test sets, whose labels are -1: the harness would score the last choice."""
    for label in (-1, 2):
        items = [ITEMS[name][0], ITEMS[name][0] | {field: label}]
        (tmp_path / f"{name}_validation.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        results = Results("any")
        run_tasks(Answering(lambda c, t: 0.0), [name], Recorder(results), data=tmp_path)
        assert results.failures == {name: f"item 2 has the label {label}, which is none of its 2 choices from 0"}
        run_tasks(Answering(lambda c, t: 0.0), [name], Recorder(results), data=tmp_path, limit=1)
        assert results.scores[name].items == 1
