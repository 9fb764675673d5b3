"""Reading what a run left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.config.error import ConfigError
from megatron_distill.report.records import find_runs, read_rows, read_run
from tests.support.records import write_run


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", "base"))
    assert run.result["parameters"] == 1_000_000
    assert run.run["device"] == "CPU"
    tokens, losses = run.series("train")
    assert (tokens[0], tokens[-1], losses[0], losses[-1]) == (5000, 50_000, 4.8, 3.0)
    assert run.series("valid")[0] == [0, 50_000]
    assert run.series("removal") == ([], [])


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "consumed_tokens": 60_000, "loss": "nan"}) + "\n")
        file.write(json.dumps({"kind": "train", "consumed_tokens": 70_000, "loss": 2.5}) + "\n")
    tokens, losses = read_run(folder).series("train")
    assert (tokens[-2:], losses[-2:]) == ([50_000, 70_000], [3.0, 2.5])


def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train"}\n{"kind": "tr\n{"kind": "valid"}\n[1]\n{"loss": 2.0}\n{"ki')
    assert read_rows(path) == [{"kind": "train"}, {"kind": "valid"}]


def test_an_unfinished_run_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match="run holds no finished run .*let it come to its end"):
        read_run(folder)


def test_a_run_as_training_leaves_it(base_run: Path) -> None:
    run = read_run(base_run)
    tokens, losses = run.series("train")
    assert tokens == [128 * step for step in range(1, 31)]
    assert losses[-1] < losses[0]
    assert run.series("valid")[0] == [0, 128 * 30]


def test_runs_are_found_at_and_under_folders(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d/e"):
        write_run(tmp_path / name, "base")
    write_run(tmp_path / "a" / "checkpoints" / "copy", "base")  # part of a run
    runs, left_out = find_runs([tmp_path / "b", tmp_path / "a", tmp_path / "b" / "c"])
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == ["a", "b/c", "b/d/e"]
    assert left_out == []


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("result.json", None, "let it come to its end first"),
        ("result.json", '{"perplexity"', "it is damaged"),
        ("run.json", "[1]", "it is damaged"),
        ("run.json", None, "No such file"),
        ("metrics.jsonl", None, "No such file"),
        ("evaluation.json", "{", "it is damaged"),
    ],
)
def test_runs_that_cannot_be_read_are_left_out_by_name(
    tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    write_run(tmp_path / "good", "base")
    bad = write_run(tmp_path / "bad", "base")
    (bad / file).unlink(missing_ok=True)
    if content is not None:
        (bad / file).write_text(content)
    runs, (said,) = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert str(bad) in said and reason in said and "\n" not in said


def test_scores_are_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    assert read_run(folder).evaluations == {}
    (folder / "evaluation.json").write_text(json.dumps({"format": 1, "models": {"iter_0000100": {"scores": {}}}}))
    assert read_run(folder).evaluations == {"iter_0000100": {"scores": {}}}


def test_where_there_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no finished run in .*; give folders"):
        find_runs([tmp_path])
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"\(1 not finished or not readable\)"):
        find_runs([tmp_path])
    with pytest.raises(ConfigError, match="there is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])
