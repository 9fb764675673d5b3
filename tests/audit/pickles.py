"""Code planted in every file of a run, a corpus and public models, with checksums that fit: no reader executes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.checkpoint.planted import KINDS, plant

from .corruptions import SCENES
from .forked import Task, run_all
from .readers import of_scene
from .rows import Options, Row, spread, tell_progress

SECTION = "pickles"
FILES = {
    "run": ("r/checkpoints/iter_0000004/*", "r/tokenizer/*", "r/latest", "r/*.json*"),
    "corpus": ("c.*",),
    "tokenizers": ("tok.json", "spm.model", "gpt2/*", "folder/*"),
    "public models": ("llama/*", "gpt2/*", "palm-tiny-paper/*"),
}
"""Files of a scene in which code is planted."""
MARKER = "executed"


@dataclass(frozen=True)
class Case:
    """Code of a kind in a file, and who reads it."""

    scene: str
    file: str
    kind: str
    reader: str


def run(options: Options) -> list[Row]:
    """A row for each scene."""
    makers = [Task(SCENES[name], (), options.folder / name) for name in FILES]
    for number, ending in run_all(makers, options.workers, 300):
        assert ending.exit_code == 0, f"the scene {makers[number].folder.name} was not made: {ending.output}"
    cases = [case for name in FILES for case in _cases_of(name, options.folder / name)]
    cases = [cases[index] for index in spread(cases, options.sample)]
    tasks = [Task(_read, (str(options.folder / c.scene), c), options.folder / f"{i}") for i, c in enumerate(cases)]
    rows = {name: Row(SECTION, name) for name in FILES}
    for done, (number, ending) in enumerate(run_all(tasks, options.workers), 1):
        case, executed = cases[number], (tasks[number].folder / MARKER).exists()
        ended = "does not end" if ending.exit_code is None else "refused" if ending.exit_code else "read past it"
        rows[case.scene].counts["EXECUTED" if executed else ended] += 1
        failure = f"code ran: {case.kind} in {case.file}, read by {case.reader}" if executed else ""
        rows[case.scene].failures += [failure] if failure else []
        tell_progress(options, SECTION, done, len(cases), failure)
        shutil.rmtree(tasks[number].folder, ignore_errors=True)
    return list(rows.values())


def _cases_of(name: str, scene: Path) -> Iterator[Case]:
    """Every kind in every file, read by all programs that know the file's folder."""
    for path in sorted(path for glob in FILES[name] for path in scene.glob(glob) if path.is_file()):
        file = str(path.relative_to(scene))
        for kind in KINDS:
            for reader in of_scene(name):
                subject = reader.partition(": ")[0] if ": " in reader else ""
                if file.startswith(subject):
                    yield Case(name, file, kind, reader)


def _read(scene: str, case: Case) -> tuple[int, None]:
    shutil.copytree(scene, ".", dirs_exist_ok=True)
    plant(Path(case.file), case.kind, Path.cwd() / MARKER)
    code, _ = of_scene(case.scene)[case.reader].read()
    return code, None
