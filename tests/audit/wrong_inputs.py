"""Wrong invocations x programs and scripts: each must end with exit code 2 and one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.end_to_end.wrong_inputs import all_cases, fault_of, make_scene, run_cases

from .forked import Task, run_all
from .rows import Options, Row, spread, tell_progress

SECTION, BATCH = "wrong-inputs", 25


def run(options: Options) -> list[Row]:
    """A row for each program."""
    scene = options.folder / "scene"
    scene.mkdir(parents=True)
    make_scene(scene)
    numbers = spread(all_cases(scene), options.sample)
    batches = [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]
    tasks = [Task(_endings, (str(scene), batch), options.folder / f"{n}") for n, batch in enumerate(batches)]
    cases, rows, done = all_cases(scene), {}, 0
    for number, ending in run_all(tasks, options.workers, timeout_s=1800):
        faults = ending.value or ["the batch ended early"] * len(batches[number])
        for index, fault in zip(batches[number], faults, strict=True):
            case = cases[index]
            row = rows.setdefault(case.program, Row(SECTION, case.program))
            row.counts[fault.split(":")[0] or "refused in a sentence"] += 1
            failure = f"{case}: {fault}" if fault else ""
            row.failures += [failure] if failure else []
            done += 1
            tell_progress(options, SECTION, done, len(numbers), failure)
    return [rows[name] for name in sorted(rows)]


def _endings(scene: str, numbers: list[int]) -> tuple[int, Any]:
    cases = all_cases(Path(scene))
    chosen = [cases[number] for number in numbers]
    endings = run_cases(chosen, Path.cwd())
    return 0, [fault_of(case, ending) for case, ending in zip(chosen, endings, strict=True)]
