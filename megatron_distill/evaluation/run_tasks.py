"""Tasks through lm-evaluation-harness, each for itself: one that cannot run does not keep the others from it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from megatron_distill.config.error import ConfigError

from .minimal_pairs import pair_task
from .results import Results, Score
from .suites import PAPER, figure_of

_TASK_FILES = Path(__file__).parent / "tasks"
_BOOTSTRAP = 200
"""Draws for the standard error of a figure that is not a mean, which they give to 5 %."""
_SEED = 1234
"""The harness's own, for tasks that show examples; ours show none."""


def run_tasks(
    model: LM, names: list[str], results: Results, *, data: Path | None = None, limit: int | None = None
) -> None:
    """Add the score of each task, or what keeps it from running, to `results`.

    `data` is a folder of local files, `limit` the number of items of each task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for name in names:
        try:
            results.scores[name] = _run(model, name, data, limit)
        except ConfigError as error:
            results.failures[name] = str(error)
        except (RuntimeError, OSError):
            raise  # of the model's ranks, whose others wait for this one
        except Exception as error:  # an item without a field, a name that the harness does not know
            text = str(error).strip().splitlines() or [""]
            results.failures[name] = f"it cannot be run ({type(error).__name__}: {text[0]})"


def _run(model: LM, name: str, data: Path | None, limit: int | None) -> Score:
    task = _load(name, data)
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
    return _score(found, name, task.task_name)


def _load(name: str, data: Path | None) -> Any:
    where = {"data": str(data)} if data else {}
    if name in PAPER:
        manager = TaskManager(include_path=str(_TASK_FILES), include_defaults=False, metadata=where)  # type: ignore[arg-type]
        wanted: Any = PAPER[name].task
    elif name.startswith("blimp_"):
        manager = TaskManager(include_defaults=False, metadata=where)  # type: ignore[arg-type]
        wanted = pair_task(name)
    else:
        manager, wanted = TaskManager(), name
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
