"""Files that are not what was written x the programs that read them: how each reading ends.

A copy of a small scene is damaged in one place, and a program reads it in a forked process. What comes of it is held
against the same program's outcome on the undamaged scene:

* refused: a sentence and exit code 2 (or 1, where it is the system's);
* fell back: said what is damaged, went on from an older whole checkpoint, and ended with the undamaged outcome;
* same: the undamaged outcome, as what was changed does not count;
* said: another outcome, and a sentence that names what is damaged or left out;
* other: another outcome and no word, where nothing in the file can tell (a number in a format without a checksum);

and, each of them a failure: silent (the same where a checksum or the grammar of the file can tell), traceback,
wordless, hang.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import scenes
from .damage import Damage, byte_damages, json_damages
from .forked import Ending, Task, run_all
from .json_damage import is_readable
from .readers import of_scene
from .rows import Options, Row, spread, tell_progress

SECTION = "corruptions"
SCENES: dict[str, Callable[[], Any]] = {
    "run": scenes.make_run,
    "finished runs": scenes.make_finished_runs,
    "reported runs": scenes.make_reported_runs,
    "corpus": scenes.make_corpora,
    "parts": scenes.make_parts,
    "tokenizers": scenes.make_tokenizers,
    "public models": scenes.make_public_models,
}
FAILURES = ("silent", "traceback", "wordless", "hang")
_TELLS = re.compile(
    r"damaged|left out|set aside|cannot be read|is missing|differ|will be made anew|ignored|warning", re.I
)


@dataclass(frozen=True)
class Files:
    """Files of a scene that the same readers read."""

    glob: str
    readers: tuple[str, ...]
    """Beginnings of readers' names."""
    sealed: bool = False
    """Whether a checksum lies elsewhere in the scene."""
    keys: int = 0
    """Keys of the JSON to change; 0 if it is none."""
    thin: int = 1
    """Of the changes of keys, each reader takes one in so many, another one than the next reader's."""
    resealed: bool = False
    """Only keys are changed, and the checksum is made to fit."""
    swaps: tuple[str, ...] = ()
    """Files of the scene that may lie in its place."""


_STEP = "r/checkpoints/iter_0000004"
_OTHERS = ("r/checkpoints/iter_0000002/{name}", "other/checkpoints/iter_0000004/{name}")
_EVERY = ("",)
_TOKENIZED = ("resume", "--load", "to-hf", "evaluate", "generate", "inspect")
_CONFIGURED = ("llama: from-hf", "llama: evaluate", "llama: generate")
FILES: dict[str, tuple[Files, ...]] = {
    "run": (
        Files(f"{_STEP}/manifest.json", _EVERY, sealed=True, swaps=_OTHERS),
        Files(f"{_STEP}/manifest.json", _EVERY, keys=30, thin=4, resealed=True),
        Files(f"{_STEP}/metadata.json", _EVERY, sealed=True, keys=1, swaps=_OTHERS),
        Files(f"{_STEP}/.metadata", _EVERY, sealed=True, swaps=_OTHERS),
        Files(f"{_STEP}/*.pt", _EVERY, sealed=True, swaps=_OTHERS),
        Files(f"{_STEP}/*.distcp", _EVERY, sealed=True, swaps=_OTHERS),
        Files("r/latest", _EVERY, swaps=("other/latest", "v.jsonl")),
        Files("r/tokenizer/*", _TOKENIZED, sealed=True, keys=1),
        Files("r/run.json", ("resume",), keys=12),
        Files("r/metrics.jsonl", ("resume",), keys=6),
        Files("r/evaluation.json", ("evaluate",), keys=20),
        Files("r/flags.txt", ("resume",)),
    ),
    "finished runs": (
        Files("runs/compressed/result.json", ("report",), keys=12),
        Files("runs/compressed/run.json", ("report",), keys=12),
        Files("runs/compressed/metrics.jsonl", ("report",), keys=6),
        Files("runs/compressed/evaluation.json", _EVERY, keys=12),
    ),
    "reported runs": (
        Files("study/seed1/none/run.json", _EVERY, keys=40, thin=3),
        Files("study/base/result.json", _EVERY, keys=9, thin=2),
        Files("study/base/metrics.jsonl", _EVERY, keys=5, thin=2),
        Files("study/base/evaluation.json", _EVERY, keys=12, thin=3),
    ),
    "corpus": (
        Files("c.bin", _EVERY, swaps=("c.idx",)),
        Files("c.idx", _EVERY, swaps=("c.bin",)),
        Files("c.meta.json", _EVERY, keys=10),
    ),
    "parts": (
        Files("d.parts/000000.bin", _EVERY, sealed=True, swaps=("d.parts/000001.bin",)),
        Files("d.parts/000000.idx", _EVERY, sealed=True, swaps=("d.parts/000001.idx",)),
        Files("d.parts/000000.json", _EVERY, keys=16, swaps=("d.parts/000001.json",)),
    ),
    "tokenizers": (
        Files("tok.json", ("tok.json",), keys=8, thin=2),
        Files("spm.model", ("spm.model",)),
        Files("gpt2/*", ("gpt2",), keys=1),
        Files("folder/tokenizer*.json", ("folder",), keys=8, thin=2),
    ),
    "public models": (
        Files("llama/config.json", ("llama",), keys=24),
        Files("llama/generation_config.json", _CONFIGURED, keys=4),
        Files("llama/tokenizer*.json", _CONFIGURED, keys=6, thin=2),
        Files("llama/model.safetensors.index.json", ("llama",), keys=4),
        Files("llama/model-0000[12]*", ("llama",)),
        Files("gpt2/config.json", ("gpt2",), keys=12, thin=2),
        Files("gpt2/pytorch_model.bin", ("gpt2",)),
        Files("palm-tiny/config.json", ("palm-tiny:",), keys=12, thin=2),
        Files("palm-tiny/*token*.json", ("palm-tiny: from-hf",)),
        Files("palm-tiny/*.safetensors", ("palm-tiny:",)),
        Files("palm-tiny-paper/config.json", ("palm-tiny-paper",), keys=12, thin=2),
        Files("palm-tiny-paper/*.safetensors", ("palm-tiny-paper",)),
    ),
}


@dataclass(frozen=True)
class Case:
    """One damage, read by one program."""

    scene: str
    damage: Damage | None
    """None for the undamaged scene."""
    reader: str
    knowable: bool = False
    """Whether the reader can know of the damage."""


def cases_of(name: str, scene: Path) -> Iterator[Case]:
    """Every damage of every file of a scene, with every program that reads it."""
    for files in FILES[name]:
        readers = [reader for reader in of_scene(name) if reader.startswith(files.readers)]
        for path in sorted(path for path in scene.glob(files.glob) if path.is_file()):
            for index, damage in enumerate(_damages(files, path, scene)):
                knowable = _is_knowable(files, damage, scene)
                for number, reader in enumerate(readers):
                    if not damage.key or (index + number) % files.thin == 0:
                        yield Case(name, damage, reader, knowable)


def _damages(files: Files, path: Path, scene: Path) -> Iterator[Damage]:
    file = str(path.relative_to(scene))
    has_keys = files.keys and path.suffix in (".json", ".jsonl")
    of_json = json_damages(file, path.read_bytes(), files.keys) if has_keys else []
    if files.resealed:
        yield from (replace(damage, resealed=True) for damage in of_json if damage.key)
        return
    yield from byte_damages(file)
    others = (other.format(name=path.name) for other in files.swaps)
    same = path.read_bytes()
    yield from (Damage(file, "swap", other=other) for other in others if (scene / other).read_bytes() != same)
    yield from of_json


def _is_knowable(files: Files, damage: Damage, scene: Path) -> bool:
    if damage.resealed or damage.kind == "missing":
        return False
    if files.sealed:
        return True
    path = scene / damage.file
    if (
        path.suffix not in (".json", ".jsonl")
        or damage.kind in ("swap", "a folder")
        or damage.kind.startswith("a link")
    ):
        return damage.kind in ("a folder", "a link to itself", "a link to nothing")
    before = path.read_bytes()
    try:
        damage.apply(scene)
        return not is_readable(path.read_bytes())
    finally:
        path.write_bytes(before)


def verdict(ending: Ending, whole: Ending, case: Case) -> str:
    """How a reading ended, in one of the words of this module's first lines."""
    if ending.exit_code is None:
        return "hang"
    if ending.exit_code not in (0, 1, 2) or "Traceback (most recent call last)" in ending.output:
        return "traceback"
    new = [line for line in ending.output.splitlines() if line not in whole.output.splitlines()]
    if ending.exit_code:
        return "refused" if any(re.match(r"[\w.]*\w\.py: \S|.*NOT EQUAL", line) for line in new) else "wordless"
    assert case.damage is not None
    name = Path(case.damage.file).name
    tells = any(_TELLS.search(line) or name in line for line in new)
    if _outcome(ending, case.reader) == _outcome(whole, case.reader):
        fell_back = tells and "going on from" in ending.output
        return "fell back" if fell_back else "same"
    if tells:
        return "said"
    return "silent" if case.knowable else "other"


def _outcome(ending: Ending, reader: str) -> Any:
    """What must not change: files that were made, and of programs that only print what they print."""
    prints = reader.endswith(("generate", "inspect"))
    return ending.value, ending.output if prints else ""


def run(options: Options) -> list[Row]:
    """Read every damaged scene; a row for each scene."""
    folder = options.folder
    names = [name for name in SCENES if name.startswith(options.subject)]
    makers = [Task(SCENES[name], (), folder / name) for name in names]
    for number, ending in run_all(makers, options.workers, 300):
        assert ending.exit_code == 0, f"the scene {makers[number].folder.name} was not made: {ending.output}"
    cases = [case for name in names for case in cases_of(name, folder / name)]
    cases = [cases[index] for index in spread(cases, options.sample)]
    whole = _read_whole(cases, options)
    rows = {name: Row(SECTION, name) for name in names}
    for done, (case, ending) in enumerate(_read_all(cases, options), 1):
        outcome, failure = verdict(ending, whole[case.scene, case.reader], case), ""
        rows[case.scene].counts[outcome] += 1
        if outcome in FAILURES:
            last = (ending.output.strip().splitlines() or [""])[-1]
            failure = f"{outcome}: {case.reader} of {case.scene}, {case.damage}: {last[:200]}"
            rows[case.scene].failures.append(failure)
        tell_progress(options, SECTION, done, len(cases), failure)
    return list(rows.values())


def _read_whole(cases: list[Case], options: Options) -> dict[tuple[str, str], Ending]:
    """Ending of every reader on the undamaged scenes."""
    pairs = list(dict.fromkeys((case.scene, case.reader) for case in cases))
    whole = {}
    for case, ending in _read_all([Case(scene, None, reader) for scene, reader in pairs], options):
        assert ending.exit_code == 0, f"{case.reader} of the undamaged {case.scene}: {ending.output}"
        whole[case.scene, case.reader] = ending
    return whole


def _read_all(cases: list[Case], options: Options) -> Iterator[tuple[Case, Ending]]:
    root = options.folder / "cases"
    tasks = [Task(_read, (str(options.folder / case.scene), case), root / f"{i}") for i, case in enumerate(cases)]
    for number, ending in run_all(tasks, options.workers):
        yield cases[number], ending
        shutil.rmtree(tasks[number].folder, ignore_errors=True)
        for suffix in (".output", ".ending"):
            tasks[number].folder.with_suffix(suffix).unlink(missing_ok=True)


def _read(scene: str, case: Case) -> tuple[int, Any]:
    """Copy the scene into the current folder, damage it, read it."""
    shutil.copytree(scene, ".", dirs_exist_ok=True)
    if case.damage is not None:
        case.damage.apply(Path())
    return of_scene(case.scene)[case.reader].read()
