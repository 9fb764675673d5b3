"""Every damage changes what a reader finds, and every ending is called by the right word."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.audit.corruptions import Case, verdict
from tests.audit.damage import BYTES, PLACES, Damage, byte_damages, json_damages
from tests.audit.forked import Ending
from tests.audit.json_damage import OF_A_KEY, WHOLE, is_readable, key_paths
from tests.audit.rows import Row, json_line, spread, table
from tests.support.programs import UNCAUGHT

DOCUMENT = {"format": 1, "model": {"layers": [3, 4], "name": "n"}}


def test_every_damage_changes_the_file(tmp_path: Path) -> None:
    content = json.dumps(DOCUMENT, indent=1).encode()
    damages = [*byte_damages("file.json"), *json_damages("file.json", content, 9), Damage("file.json", "swap", "other")]
    assert len(damages) == len(BYTES) + len(PLACES) + len(WHOLE) + 5 * len(OF_A_KEY) + 1
    for damage in damages:
        path = tmp_path / "file.json"
        path.write_bytes(content)
        (tmp_path / "other").write_text("another")
        damage.apply(tmp_path)
        assert not path.is_file() or path.read_bytes() != content, damage
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)


def test_keys_of_all_depths_and_of_the_last_line() -> None:
    assert key_paths(json.dumps(DOCUMENT).encode()) == [
        "format",
        "model",
        "model/layers",
        "model/name",
        "model/layers/0",
    ]
    lines = b'{"a": 1}\n{"b": 2}\n'
    assert key_paths(lines) == ["b"]
    (changed,) = [d for d in json_damages("x.jsonl", lines, 1) if d.kind == "value negative"]
    assert changed.key == "b"


def test_a_line_that_a_crash_cut_in_two_is_expected() -> None:
    assert is_readable(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert not is_readable(b'{"a": 1}\n{"a"\n{"a": 2}\n')
    assert not is_readable(b'{"a": 1')


def test_a_manifest_is_sealed_again(tmp_path: Path) -> None:
    from megatron_distill.checkpoint.checksum import text_checksum

    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"checksum": "0", "step": 5}))
    Damage("manifest.json", "value negative", key="step", resealed=True).apply(tmp_path)
    values = json.loads(path.read_text())
    assert values.pop("checksum") == text_checksum(json.dumps(values, sort_keys=True))
    assert values == {"step": -5}


WHOLE_ENDING = Ending(0, "step 1\n", [1.0], 0.1)
SENTENCE = "evaluate.py: x.json is damaged: it is not JSON"


@pytest.mark.parametrize(
    ("ending", "knowable", "word"),
    [
        (Ending(None, "", None, 90.0), True, "hang"),
        (Ending(UNCAUGHT, "Traceback (most recent call last):\nKeyError", None, 0.1), True, "traceback"),
        (Ending(-9, "", None, 0.1), True, "traceback"),
        (Ending(2, "Traceback (most recent call last):\n", None, 0.1), True, "traceback"),
        (Ending(2, SENTENCE, None, 0.1), True, "refused"),
        (Ending(1, "wrote n: logits NOT EQUAL, largest difference 3", None, 0.1), True, "refused"),
        (Ending(2, "step 1\n", None, 0.1), True, "wordless"),
        (Ending(0, "step 1\n", [1.0], 0.1), True, "same"),
        (Ending(0, f"{SENTENCE}; going on from iter_0000002", [1.0], 0.1), True, "fell back"),
        (Ending(0, "left out: b", [2.0], 0.1), True, "said"),
        (Ending(0, "step 1\n", [2.0], 0.1), True, "silent"),
        (Ending(0, "step 1\n", [2.0], 0.1), False, "other"),
    ],
)
def test_endings_are_told_apart(ending: Ending, knowable: bool, word: str) -> None:
    case = Case("run", Damage("x.json", "empty"), "resume", knowable)
    assert verdict(ending, WHOLE_ENDING, case) == word


def test_what_a_program_only_prints_is_its_outcome() -> None:
    case = Case("run", Damage("x.json", "empty"), "generate", True)
    assert verdict(Ending(0, "another text\n", None, 0.1), WHOLE_ENDING, case) == "silent"


def test_samples_are_spread_evenly() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), None) == spread(range(3), 9) == [0, 1, 2]


def test_rows_for_people_and_for_programs() -> None:
    row = Row("corruptions", "run", Counter(refused=1200, silent=1), ["silent: x"])
    assert table([row]) == "corruptions  run  1,201  1 FAILED  1,200 refused, 1 silent\nFAILED corruptions: silent: x"
    assert json.loads(json_line(row)) == {
        "section": "corruptions",
        "subject": "run",
        "cases": 1201,
        "outcomes": {"refused": 1200, "silent": 1},
        "failures": ["silent: x"],
    }
