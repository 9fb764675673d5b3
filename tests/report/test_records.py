"""Reading what a run left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_distill.checkpoint.manifest import Manifest, read_manifest
from megatron_distill.config.error import ConfigError
from megatron_distill.config.model import ModelConfig
from megatron_distill.evaluation.results import Results, Score
from megatron_distill.evaluation.score_file import add_scores
from megatron_distill.report.records import find_runs, read_rows, read_run
from tests.support.records import write_run, write_study


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
    assert read_rows(path) == ([{"kind": "train"}, {"kind": "valid"}], 4)


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
        ("result.json", '{"perplexity"', "is damaged"),
        ("run.json", "[1]", "is damaged"),
        ("run.json", None, "No such file"),
        ("metrics.jsonl", None, "No such file"),
        ("evaluation.json", "{", "is damaged"),
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


def test_damaged_lines_are_counted_and_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "valid", "iteration": Infinity}\n{"kind": \xff}\n' + b"[" * 100_000 + b"\n{}\n")
    (run,), (said,) = find_runs([tmp_path])
    assert run.damaged_lines == 4 and said.startswith(f"4 damaged lines of {folder / 'metrics.jsonl'}")


def test_scores_are_those_of_the_weights_that_the_run_has(tmp_path: Path) -> None:
    folder, name = write_run(tmp_path / "run", "base"), "iter_0000100"
    assert read_run(folder).scores(100) == {}

    def score(value: float, weights: str) -> None:
        found = Results("run", iteration=100, weights=weights, scores={"piqa": Score("acc", value, None, 5)})
        add_scores(folder / "evaluation.json", name, found)

    score(0.9, "of the run before")
    assert read_run(folder).scores(100) == {"piqa": 0.9}  # there is no checkpoint to compare with
    checkpoint = folder / "checkpoints" / name
    checkpoint.mkdir(parents=True)
    shape = ModelConfig(model="palm-tiny").shape()
    whole = Manifest(
        **{"iteration": 100, "consumed_samples": 1, "consumed_tokens": 1, "shape": shape, "optimizer": "lion"},
        **{"layers": (0,), "trainable_layers": (0,), "dtype": "float32"},
    )
    whole.write(checkpoint)
    assert read_run(folder).scores(100) == {}
    score(0.4, read_manifest(checkpoint).fingerprint)
    assert read_run(folder).scores(100) == {"piqa": 0.4}
    assert read_run(folder).scores(50) == {}


def test_old_scores_are_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "base")
    entry = {"scores": {"piqa": {"metric": "acc", "value": 0.6}}}
    (folder / "evaluation.json").write_text(json.dumps({"format": 1, "models": {"iter_0000100": entry}}))
    assert read_run(folder).scores(100) == {"piqa": 0.6}


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("run.json", "versions", None),
        ("run.json", "config", []),
        ("run.json", "config.data", 7),
        ("run.json", "config.training", "x"),
        ("run.json", "config.data.data_path", [1, 2]),
        ("run.json", "config.logging.label", [None]),
        ("run.json", "config.distillation.loss", "vanilla"),
        ("run.json", "shape", {"num_layers": 24}),
        ("run.json", "layout", {"tensor": "two"}),
        ("run.json", "total_iters", "many"),
        ("result.json", "parameters", "many"),
        ("result.json", "perplexity", [1]),
        ("evaluation.json", "models", None),
        ("evaluation.json", "format", "1"),
    ],
)
def test_a_value_of_another_type_leaves_its_run_out(tmp_path: Path, file: str, path: str, value: object) -> None:
    runs = write_study(tmp_path / "runs")
    odd = runs / "base" / file
    content = json.loads(odd.read_text())
    *way, key = path.split(".")
    place = content
    for step in way:
        place = place[step]
    place[key] = value
    odd.write_text(json.dumps(content))
    found, (said,) = find_runs([runs])
    assert len(found) == 16 and str(odd) in said and "is damaged" in said and "\n" not in said


def test_where_there_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no finished run in .*; give folders"):
        find_runs([tmp_path])
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"\(1 not finished or not readable\)"):
        find_runs([tmp_path])
    with pytest.raises(ConfigError, match="there is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_a_run_without_a_line_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "base")
    (folder / "metrics.jsonl").write_text("")
    (run,), (said,) = find_runs([tmp_path])
    assert run.rows == [] and said.startswith(f"the curves of {folder}")
    (folder / "evaluation.json").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="evaluation.json cannot be read: it is a link to nowhere"):
        read_run(folder)
