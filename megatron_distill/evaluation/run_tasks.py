"""Tasks through lm-evaluation-harness, by their names."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import re
import warnings
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from megatron_distill.config.error import ConfigError

from .items import file_of
from .minimal_pairs import pair_task
from .recorder import Recorder
from .results import Score
from .suites import PAPER, figure_of

_TASK_FILES = Path(__file__).parent / "tasks"
_BOOTSTRAP = 200
"""Draws for the standard error of a figure that is not a mean, which they give to 5 %."""
_NAME = r"(?!.*\.ya?ml$)[\w()+-]+(\.[\w()+-]+)*"
"""Of a task of the harness; no path."""
_SEED = 1234
"""The harness's own, for tasks that show examples; ours show none."""


def run_tasks(
    model: LM, names: list[str], recorder: Recorder, *, data: Path | None = None, limit: int | None = None
) -> None:
    """Record the score of each task, or what keeps it from running.

    `data` is a folder of local files, `limit` the number of items of each task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for name in names:
        recorder.attempt(name, partial(_run, model, name, data, limit))


def _run(model: LM, name: str, data: Path | None, limit: int | None) -> dict[str, Score]:
    task = _load(name, data)
    _check_labels(task, limit)
    task.set_fewshot_seed(_SEED)
    # It would fork a process for each core to draw samples, out of one that has a GPU and a process group.
    os.environ["DISABLE_MULTIPROC"] = "1"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        # Not simple_evaluate, which asks pip for all that is installed, for every task.
        found = lm_eval.evaluate(
            lm=model,
            task_dict={"tasks": {task.task_name: task}},
            limit=limit,
            bootstrap_iters=_BOOTSTRAP,
            log_samples=False,
        )
    score = _score(found, name, task.task_name)
    notes = model.notes() if isinstance(model, Noting) else []
    return {name: replace(score, note="; ".join(notes))}


@runtime_checkable
class Noting(Protocol):
    """A model that has something to say about the requests since it was last asked."""

    def notes(self) -> list[str]:
        """Sentences, which are then forgotten."""


def _check_labels(task: Any, limit: int | None) -> None:
    """Each item's answer is one of its choices: the harness would take -1 for the last and others for none."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return
    for number, item in enumerate(task.eval_docs, 1):
        if limit is not None and number > limit:
            return
        answer = task.doc_to_text(item) if task.multiple_input else task.doc_to_target(item)
        count = len(task.doc_to_choice(item))
        if isinstance(answer, int) and not 0 <= answer < count:
            raise ConfigError(f"item {number} has the label {answer}, which is none of its {count} choices from 0")


@cache
def _all_of_the_harness() -> TaskManager:
    """Its index of over ten thousand tasks, which takes seconds to read."""
    return TaskManager()


def _load(name: str, data: Path | None) -> Any:
    where = {"data": str(data)} if data else {}
    if name in PAPER:
        manager = TaskManager(include_path=str(_TASK_FILES), include_defaults=False, metadata=where)  # type: ignore[arg-type]
        wanted: Any = PAPER[name].task
    elif file_of(name) is not None:
        manager = TaskManager(include_defaults=False, metadata=where)  # type: ignore[arg-type]
        wanted = pair_task(name)
    else:
        if not re.fullmatch(_NAME, name):  # quickly, and before any file is looked at
            raise ConfigError("lm-evaluation-harness has no task of this name, and files are not taken")
        manager, wanted = _all_of_the_harness(), name
        if name not in manager.all_tasks:  # a path would be taken too, and code beside the file would run
            near = difflib.get_close_matches(name, manager.all_tasks, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"lm-evaluation-harness has no task of this name, and files are not taken{hint}")
    found = manager.load([wanted])["tasks"]
    if len(found) != 1:
        raise ConfigError(f"{name} is {len(found)} tasks of lm-evaluation-harness; name them one by one")
    return next(iter(found.values()))


def _score(found: Any, name: str, task: str) -> Score:
    values = {key.removesuffix(",none"): value for key, value in found["results"][task].items()}
    metric = figure_of(name).metric
    if metric not in values:  # of a task that is not ours: the first it has
        metric = next(key for key, value in values.items() if isinstance(value, float) and "stderr" not in key)
    errors = {key: value for key, value in values.items() if key.endswith("_stderr") and isinstance(value, float)}
    return Score(
        metric=metric,
        value=float(values[metric]),
        stderr=errors.get(f"{metric}_stderr"),
        items=int(found["n-samples"][task]["effective"]),
        all={key: float(value) for key, value in values.items() if isinstance(value, float) and key not in errors},
    )
