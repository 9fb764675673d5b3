"""Whether tasks are there, told before anything is trained that they are to score."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence

from megatron_distill.config.error import ConfigError

from .suites import AVERAGES, OTHER, PAPER, SUITES, expand

OURS = {*PAPER, *OTHER, *SUITES, *(name for names in AVERAGES.values() for name in names)}


def check_tasks(names: Sequence[str]) -> None:
    """Check that every name is a task of ours or of lm-evaluation-harness, which is only asked about other names.

    Raises:
        ConfigError: one is none.
    """
    others = [name for name in expand(list(names)) if name not in OURS]
    known = _harness_tasks() if others else set()
    for name in others:
        if name not in known:
            near = difflib.get_close_matches(name, [*OURS, *known], 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUITES)} and their members"
            raise ConfigError(f"no task is called {name}; {hint}")


def _harness_tasks() -> set[str]:
    if importlib.util.find_spec("lm_eval") is None:
        return set()
    from lm_eval.tasks import TaskManager

    return set(TaskManager().all_tasks)
