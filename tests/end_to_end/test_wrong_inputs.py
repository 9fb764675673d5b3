"""A sample of the wrong invocations; the audit tries all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.wrong_inputs import Case, Ending, all_cases, fault_of, make_scene, run_cases


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    make_scene(folder)
    return folder


def test_there_are_more_than_a_thousand(scene: Path) -> None:
    cases = all_cases(scene)
    assert len({str(case) for case in cases}) > 1200
    assert len({case.program for case in cases}) > 10


def test_each_ends_with_one_sentence(scene: Path, tmp_path: Path) -> None:
    programs = [case for case in all_cases(scene) if not case.program.endswith(".sh")]
    sample = programs[:: len(programs) // 150]
    faults = {
        str(case): fault_of(case, ending) for case, ending in zip(sample, run_cases(sample, tmp_path), strict=True)
    }
    assert {case: fault for case, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        (Ending(2, "", "plan.py: --gpus 0 must be at least 1\n"), ""),
        (Ending(None, "", ""), "does not end"),
        (Ending(1, "", "plan.py: a\n"), "exit code 1"),
        (Ending(0, "8 GPUs\n", ""), "exit code 0"),
        (Ending(1, "", "Traceback (most recent call last):\nKeyError: 'a'\n"), "traceback: KeyError"),
        (Ending(2, "", "usage: plan.py\nplan.py: error: a\n"), "2 lines"),
        (Ending(2, "", ""), "0 lines"),
        (Ending(2, "", "launch.sh: line 21: abc: unbound variable\n"), "bash's own words"),
        (Ending(2, "", "error: a\n"), "does not begin with the program's name"),
        (Ending(2, "", "plan.py: a\n", ("out",)), "left out behind"),
    ],
)
def test_what_counts_as_a_fault(ending: Ending, fault: str) -> None:
    found = fault_of(Case("tools/plan", ("--gpus", "0")), ending)
    assert fault in found and bool(found) == bool(fault)
