"""Tasks one after another, each for itself: one that cannot run costs no other its score, and what is found is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from megatron_distill.config.error import ConfigError

from .results import Results, Score


class CrewFailedError(RuntimeError):
    """The work failed on one rank while others wait for it: nothing more can be done."""


@dataclass
class Recorder:
    """What is found, and who is told of it after each task."""

    results: Results
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each task was asked with (`Evaluation.settings_of`)."""
    keep: Callable[[Results], None] = lambda results: None
    """Called after each task, so that a crash in the next one loses nothing."""

    def attempt(self, task: str, work: Callable[[], dict[str, Score]]) -> None:
        """Run a task, and record its scores or one sentence on what kept it from running.

        Raises:
            CrewFailedError: other ranks wait for this one.
        """
        try:
            scores = work()
        except CrewFailedError:
            raise
        except ConfigError as error:
            self.results.failures[task] = str(error)
        except Exception as error:  # whatever the harness, its data sets, the hub and the items make it raise
            text = str(error).strip().splitlines() or ["without a word"]
            self.results.failures[task] = f"it cannot be run ({type(error).__name__}: {text[0]})"
        else:
            self.results.take(task, scores, self.settings.get(task, {}))
        self.keep(self.results)
