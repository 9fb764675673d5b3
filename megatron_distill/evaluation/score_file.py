"""evaluation.json: the scores of a run's checkpoints, or of any models.

A score belongs to weights, not to a name: an entry has the fingerprint of its weights, and a checkpoint that was
written anew under an old name gets an entry of its own. It belongs to its settings too: a second text or another number
of items stands beside the first. Nothing that is in a file is ever lost.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError
from megatron_distill.config.json_file import read_json, set_aside
from megatron_distill.data.whole_file import check_writable, write_whole

from .results import Results, Score, without_paths

FORMAT = 2
"""Format 1, whose scores do not say of which weights they are, is read too."""
FILE = "evaluation.json"
"""In a run's folder."""
_OTHER = "@"
"""Between a name and what tells it from another of that name: older weights, other settings."""


@dataclass(frozen=True)
class Stored:
    """A score in a file; numbers that are not finite are null there."""

    metric: str
    value: float | None
    stderr: float | None = None
    items: int = 0
    all: dict[str, float | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    note: str = ""

    def score(self) -> Score:
        """As it was taken."""
        values = {name: math.nan if value is None else value for name, value in self.all.items()}
        value = math.nan if self.value is None else self.value
        return Score(self.metric, value, self.stderr, self.items, values, self.settings, self.task, self.note)


@dataclass(frozen=True)
class Entry:
    """The scores of one model."""

    model: str = ""
    """As it was given."""
    name: str = ""
    """`iter_0000100` of a run, the path of any other model."""
    iteration: int | None = None
    weights: str | None = None
    """Their fingerprint; None in format 1."""
    scores: dict[str, Stored] = field(default_factory=dict)
    """By name those that were taken last, by `name@...` those of the same name with other settings."""
    averages: dict[str, Stored] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreFile:
    """The whole file."""

    format: int
    models: dict[str, Entry]
    """By name those that were evaluated last, by `name@...` those of the same name with other weights."""

    def of(self, name: str, weights: str | None) -> Entry | None:
        """The scores of a model's weights; without weights to compare, or in format 1, those of its name."""
        named = {key: entry for key, entry in self.models.items() if key == name or entry.name == name}
        exact = next((entry for entry in named.values() if weights and entry.weights == weights), None)
        newest = named.get(name)
        if exact is None and newest is not None and (weights is None or newest.weights is None):
            return newest
        return exact


class NewerFormatError(ConfigError):
    """A file of a later version, which is not touched."""


def read_scores(path: Path) -> ScoreFile:
    """What is in a file of scores; nothing if there is none.

    Raises:
        ConfigError: it is damaged, of a newer format, or something else than a file of scores.
    """
    try:
        found = read_json(path, ScoreFile)
    except FileNotFoundError:
        return ScoreFile(FORMAT, {})
    if found.format not in (1, FORMAT):
        raise NewerFormatError(f"{path} has format {found.format}; this version reads 1 and {FORMAT}")
    return found


def check_out(path: Path) -> None:
    """Find out before any work whether scores can be written there.

    Raises:
        ConfigError: they cannot, or a file is there that is something else, which is not replaced.
    """
    check_writable(path)
    if not path.is_file() or (not path.stat().st_size and path.name != FILE):
        return
    try:
        read_scores(path)
    except NewerFormatError:
        raise
    except ConfigError as error:
        if path.name == FILE:
            return  # damaged: `add_scores` sets it aside
        raise ConfigError(
            f"--out {path} is a file that holds no scores, and is not replaced ({error}); give another name"
        ) from error


def known(path: Path, name: str, weights: str, wanted: dict[str, dict[str, Any]]) -> dict[str, Score]:
    """The scores in the file that these weights got in the `wanted` tasks with these settings, by their names.

    A damaged file has none; `add_scores` sets it aside.
    """
    try:
        entry = read_scores(path).of(name, weights)
    except ConfigError:
        return {}
    if entry is None or entry.weights != weights:
        return {}
    found = {}
    for key, stored in entry.scores.items():
        plain = _plain_name(key)
        task = stored.task or plain
        if task in wanted and without_paths(stored.settings) == without_paths(wanted[task]):
            found[plain] = stored.score()
    return found


def add_scores(path: Path, name: str, results: Results) -> list[str]:
    """Add `results` to the file, whatever else is in it; returns a sentence if what was there had to be set aside.

    Raises:
        ConfigError: the file is of a newer format, or cannot be written.
    """
    if path.exists() and not path.is_file():  # a device or a pipe: nothing to add to
        write_whole(path, _text(_added(ScoreFile(FORMAT, {}), name, results)))
        return []
    with _alone(path.parent):
        content, said = _content(path)
        write_whole(path, _text(_added(content, name, results)))
    return said


def _content(path: Path) -> tuple[ScoreFile, list[str]]:
    if path.exists() and not path.stat().st_size and path.name != FILE:
        return ScoreFile(FORMAT, {}), []
    try:
        return read_scores(path), []
    except ConfigError as error:
        if isinstance(error, NewerFormatError) or path.name != FILE:
            raise
        return ScoreFile(FORMAT, {}), [f"{error}; what was there is now {set_aside(path)}"]


def _added(content: ScoreFile, name: str, results: Results) -> ScoreFile:
    models = dict(content.models)
    before = content.of(name, results.weights)
    if before is None or before.weights != results.weights:
        before = Entry()
    key = next((key for key, entry in models.items() if entry is before), None)
    if key is not None:
        del models[key]
    if name in models:  # of other weights, or of format 1
        older = models.pop(name)
        models[_free(models, name, (older.weights or "unknown")[:8])] = dataclasses.replace(older, name=name)
    scores = dict(before.scores)
    for plain, score in results.scores.items():
        _put(scores, plain, _stored(score))
    newest = {plain: stored.score() for plain, stored in scores.items() if _OTHER not in plain}
    means = dataclasses.replace(results, scores=newest).averages()
    models[name] = Entry(
        model=results.model,
        name=name,
        iteration=results.iteration,
        weights=results.weights,
        scores=scores,
        averages={mean: _stored(score) for mean, score in means.items()},
        failures=results.failures,
    )
    return ScoreFile(FORMAT, models)


def _put(scores: dict[str, Stored], name: str, new: Stored) -> None:
    """The newest of a name has the plain one; what had it with other settings gets one of its own."""
    for key in [key for key in scores if _plain_name(key) == name]:
        if _identity(scores[key]) == _identity(new):
            del scores[key]
    if name in scores:
        older = scores.pop(name)
        digest = hashlib.sha256(_identity(older).encode()).hexdigest()[:8]
        scores[_free(scores, name, digest)] = older
    scores[name] = new


def _free(taken: dict[str, Any], name: str, mark: str) -> str:
    """`name@mark`, or the first `name@mark_2`, ... that is free."""
    key, number = f"{name}{_OTHER}{mark}", 1
    while key in taken:
        number += 1
        key = f"{name}{_OTHER}{mark}_{number}"
    return key


def _identity(stored: Stored) -> str:
    return json.dumps(without_paths(stored.settings), sort_keys=True)


def _plain_name(key: str) -> str:
    return key.partition(_OTHER)[0]


def _stored(score: Score) -> Stored:
    return Stored(
        metric=score.metric,
        value=_finite(score.value),
        stderr=_finite(score.stderr),
        items=score.items,
        all={name: _finite(value) for name, value in score.all.items()},
        settings=score.settings,
        task=score.task,
        note=score.note,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(content: ScoreFile) -> str:
    return json.dumps(dataclasses.asdict(content), indent=1) + "\n"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other evaluations from writing in the folder between reading and writing; as far as its disk has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
