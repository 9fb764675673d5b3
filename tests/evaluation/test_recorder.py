"""Tasks one after another: what one costs the others, and when scores are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.evaluation.recorder import CrewFailedError, Recorder
from megatron_distill.evaluation.results import Results, Score
from megatron_distill.evaluation.score_file import add_scores, read_scores

SCORE = Score("acc", 0.5, None, 10)


def failing(error: BaseException) -> dict[str, Score]:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionError("Couldn't reach 'x'\nmore"),
            "it cannot be run (ConnectionError: Couldn't reach 'x'",
        ),
        (RuntimeError("out of memory"), "it cannot be run (RuntimeError: out of memory)"),
        (AssertionError(), "it cannot be run (AssertionError: without a word)"),
        (ConfigError("there is no file"), "there is no file"),
        (KeyError("hypothesis"), "hypothesis"),
        (RecursionError("too deep"), "too deep"),
    ],
)
def test_one_task_costs_no_other_its_score(error: Exception, said: str) -> None:
    kept: list[tuple[list[str], list[str]]] = []
    recorder = Recorder(Results("run"), keep=lambda found: kept.append((list(found.scores), list(found.failures))))
    recorder.attempt("piqa", lambda: {"piqa": SCORE})
    recorder.attempt("copa", lambda: failing(error))
    recorder.attempt("rte", lambda: {"rte": SCORE})
    assert list(recorder.results.scores) == ["piqa", "rte"]
    assert said in recorder.results.failures["copa"] and "\n" not in recorder.results.failures["copa"]
    assert kept == [(["piqa"], []), (["piqa"], ["copa"]), (["piqa", "rte"], ["copa"])]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), CrewFailedError("a rank died")])
def test_an_end_in_the_third_task_keeps_two(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "evaluation.json"
    recorder = Recorder(Results("run", weights="1"), keep=lambda found: add_scores(path, "run", found) and None)
    recorder.attempt("piqa", lambda: {"piqa": SCORE})
    recorder.attempt("copa", lambda: {"copa": SCORE})
    with pytest.raises(type(error)):
        recorder.attempt("rte", lambda: failing(error))
    assert set(read_scores(path).models["run"].scores) == {"piqa", "copa"}


def test_scores_have_the_settings_of_their_task() -> None:
    recorder = Recorder(Results("run"), {"perplexity": {"text": "a"}, "piqa": {"limit": 5}})
    recorder.attempt("perplexity", lambda: {"perplexity": SCORE, "bits_per_byte": SCORE})
    recorder.attempt("piqa", lambda: {"piqa": SCORE})
    found = {name: (score.task, score.settings) for name, score in recorder.results.scores.items()}
    assert found == {
        "perplexity": ("perplexity", {"text": "a"}),
        "bits_per_byte": ("perplexity", {"text": "a"}),
        "piqa": ("piqa", {"limit": 5}),
    }
