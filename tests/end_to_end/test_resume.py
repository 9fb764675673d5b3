"""A run that was interrupted ends as one that was not, to the last bit."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.runs import MODEL, ROOT, SMALL, command, environment, result, rows, start, trace


def flags(corpus: Path, base: Path, run: Path) -> list[object]:
    """A compression with a seed phase and layers that leave one by one."""
    return [
        *(*SMALL, "--data-path", corpus, "--load", base, "--save", run, "--train-iters", 24, "--save-interval", 5),
        *("--pruning-layout", "max-gap", "--pruning-num-layers", 3, "--pruning-seed-tokens", 4 * 4 * 32),
        *("--pruning-gap-tokens", 3 * 4 * 32, "--optimizer", "lion", "--eval-interval", 8),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path, base_run: Path) -> Path:
    """The same run, never interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    start(*flags(corpus, base_run, run))
    return run


def outcome(run: Path) -> tuple[dict[str, object], list[object]]:
    """result.json without what a clock or the system says, and when layers left."""
    measured = ("seconds", "tokens_per_s", "accelerator_hours", "peak_memory_bytes")
    removals = [(row["iteration"], row["removed"]) for row in rows(run, "removal")]
    return {k: v for k, v in result(run).items() if k not in measured}, removals


def test_stopped_right_before_the_last_layer_leaves(whole: Path, tmp_path: Path, corpus: Path, base_run: Path) -> None:
    arguments = flags(corpus, base_run, tmp_path / "run")
    start(*arguments, "--exit-interval", 10)
    start(*arguments)
    assert outcome(tmp_path / "run") == outcome(whole)


def test_killed_in_the_middle(whole: Path, tmp_path: Path, corpus: Path, base_run: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(corpus, base_run, run)
    for lines in (6, 14):  # before and after the first removals
        process = subprocess.Popen(command(*arguments), env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) >= lines:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    start(*arguments)
    assert trace(run) == trace(whole)
    assert outcome(run) == outcome(whole)


def test_asked_to_stop_saves_and_exits_with_zero(whole: Path, tmp_path: Path, corpus: Path, base_run: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(corpus, base_run, run)
    process = subprocess.Popen(command(*arguments), env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.send_signal(signal.SIGTERM)
            break
    said = process.stdout.read()
    assert process.wait(60) == 0
    assert "the same command goes on from here" in said
    start(*arguments)
    assert trace(run) == trace(whole)


def test_layers_leave_everything_and_the_others_keep_their_momentum(whole: Path, base_run: Path) -> None:
    removals = rows(whole, "removal")
    assert [(row["iteration"], row["removed"]) for row in removals] == [(4, [1]), (7, [3]), (10, [4])]
    assert result(whole)["layers"] == [0, 2, 5]
    per_step = [b["flops"] - a["flops"] for a, b in zip(rows(whole), rows(whole)[1:], strict=False)]
    assert per_step[0] > per_step[4] > per_step[7] > per_step[10] == per_step[-1]
    assert result(whole)["perplexity"] < result(whole)["initial_perplexity"]
    newest = whole / "checkpoints" / (whole / "latest").read_text().strip()
    biggest = sum(p.stat().st_size for p in (base_run / "checkpoints").glob("*/*.distcp")) / 1
    assert sum(p.stat().st_size for p in newest.glob("*.distcp")) < biggest


def test_on_two_stages_and_two_tensor_ranks_the_losses_are_the_same(
    whole: Path, tmp_path: Path, corpus: Path, base_run: Path
) -> None:
    arguments = [*flags(corpus, base_run, tmp_path / "run"), "--pruning-layout", "1,2,3,4", "--pruning-num-layers", 4]
    start(*arguments, "--save", tmp_path / "alone")
    layout = ["--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2, "--sequence-parallel"]
    start(*arguments, *layout, ranks=4)
    found, wanted = trace(tmp_path / "run"), trace(tmp_path / "alone")
    assert len(found) == len(wanted) == 24
    for a, b in zip(found, wanted, strict=True):
        # Lion takes a sign of what rounds differently on another layout, so the traces part slowly.
        assert a[1] == pytest.approx(b[1], rel=1e-4)


def test_resumes_on_another_layout(tmp_path: Path, corpus: Path) -> None:
    common = [*MODEL, *SMALL, "--num-layers", 4, "--data-path", corpus, "--train-iters", 10, "--optimizer", "adamw"]
    common += ["--decay-semantics", "lr"]
    start(*common, "--save", tmp_path / "whole")
    layout = ["--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2]
    start(*common, "--save", tmp_path / "run", "--exit-interval", 5, *layout, ranks=4)
    start(*common, "--save", tmp_path / "run", ranks=2)
    for a, b in zip(trace(tmp_path / "run"), trace(tmp_path / "whole"), strict=True):
        assert a[1] == pytest.approx(b[1], rel=1e-5)
