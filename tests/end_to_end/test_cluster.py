"""Ranks that are killed, disks that are full, signals, two runs in one folder: what a cluster does to a run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from megatron_distill.checkpoint.manifest import read_latest
from tests.support.cluster import Pids, forked, lines
from tests.support.corpora import write_corpus
from tests.support.runs import MODEL, ROOT, SMALL, command, environment, result, rows, trace

LAYOUTS = {
    "tp2": ["--tensor-model-parallel-size", 2, "--sequence-parallel"],
    "pp2": ["--pipeline-model-parallel-size", 2],
    "dp2": [],
}


def flags(corpus: Path, run: Path, *more: object) -> list[object]:
    """A run of 30 steps."""
    return [*MODEL, *SMALL, "--data-path", corpus, "--save", run, "--train-iters", 30, "--save-interval", 4, *more]


def compression(corpus: Path, run: Path) -> list[object]:
    """A short run that does everything: validations, saves and removals at the same steps and at others."""
    return [
        *flags(corpus, run, "--train-iters", 5, "--save-interval", 2, "--eval-interval", 2, "--num-layers", 6),
        *("--pruning-layout", "1,3", "--pruning-seed-tokens", 3 * 128, "--pruning-gap-tokens", 128),
        *("--log-interval", 2),
    ]


def story(run: Path) -> list[Any]:
    """All that a run told, times left out."""
    times = {"time", "seconds", "tokens_per_s", "accelerator_hours", "peak_memory_bytes"}
    told = [row for kind in ("train", "valid", "removal") for row in rows(run, kind)]
    return [{k: v for k, v in row.items() if k not in times} for row in [*told, result(run)]]


def refused(*arguments: object) -> str:
    """The sentence with which a run is refused; it changes nothing."""
    run = Path(str(arguments[arguments.index("--save") + 1]))
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    codes, said = forked(*arguments)
    assert codes == [2], said
    assert said.count("\n") == 1 and said.startswith("pretrain_distill.py: ")
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
    return said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A run of 4 steps, ended; copy it to change it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert forked(*flags(corpus, run, "--train-iters", 4))[0] == [0]
    return run


@pytest.fixture
def ended(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("layout", ["pp2", "dp2"])
def test_one_rank_is_killed_and_the_job_is_started_again(layout: str, corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert forked(*flags(corpus, whole, *LAYOUTS[layout]), ranks=2)[0] == [0, 0]
    codes, _ = forked(*flags(corpus, run, *LAYOUTS[layout]), ranks=2, on_row=(8, kill_last))
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    assert forked(*flags(corpus, run, *LAYOUTS[layout]), ranks=2)[0] == [0, 0]
    assert json.loads((run / "run.json").read_text())["resumed_at"] >= 4
    assert trace(run) == trace(whole)


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again(corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert forked(*flags(corpus, whole, *LAYOUTS["tp2"]), ranks=2)[0] == [0, 0]
    torchrun = command(*flags(corpus, run, *LAYOUTS["tp2"]), ranks=2)
    torchrun[3:3] = ["--max-restarts", "1", "--monitor-interval", "0.1"]
    with open(tmp_path / "said", "wb") as said:  # noqa: PTH123
        job = subprocess.Popen(torchrun, env=environment(), cwd=ROOT, stdout=said, stderr=said)
    while lines(run) < 8 and job.poll() is None:
        time.sleep(0.005)
    (victim,) = (p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1")
    victim.kill()
    assert job.wait(90) == 0, (tmp_path / "said").read_text()[-3000:]
    assert json.loads((run / "run.json").read_text())["resumed_at"] >= 4
    assert trace(run) == trace(whole)


@pytest.mark.slow
def test_killed_at_every_moment(corpus: Path, tmp_path: Path) -> None:
    """Each start dies one change of a file later than the one before, until one comes to the end."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert forked(*compression(corpus, whole))[0] == [0]
    deaths = set()
    for moment in itertools.count(8, 2):
        codes, said = forked(*compression(corpus, run), die_at=moment)
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL], said
        deaths.add(said.split("killed before ")[1].split()[0])
        read_latest(run)
    assert {"os.mkdir", "os.rename", "open"} <= deaths
    assert story(run) == story(whole)


@pytest.mark.parametrize("moment", [15, 24])
def test_two_ranks_killed_while_they_save(moment: int, corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert forked(*compression(corpus, whole), ranks=2)[0] == [0, 0]
    codes, said = forked(*compression(corpus, run), ranks=2, die_at=moment)
    assert codes[0] == -signal.SIGKILL and "/checkpoints/" in said.split("killed before ")[1]
    read_latest(run)
    assert forked(*compression(corpus, run), ranks=2)[0] == [0, 0]
    assert story(run) == story(whole)


def test_nothing_of_a_killed_run_stays_behind(corpus: Path, tmp_path: Path) -> None:
    """A process that outlives it would keep its memory, and `... | tee log` from ending."""
    with subprocess.Popen(
        command(*flags(corpus, tmp_path / "run", "--train-iters", 100_000)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("saved"):
                process.kill()
        assert process.wait() == -signal.SIGKILL


def kill_last(pids: Pids) -> None:
    os.kill(pids[-1], signal.SIGKILL)


def stop_first_twice(pids: Pids) -> None:
    os.kill(pids[0], signal.SIGUSR1)
    os.kill(pids[0], signal.SIGTERM)


def stop_last(pids: Pids) -> None:
    os.kill(pids[-1], signal.SIGHUP)


def interrupt_all(pids: Pids) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGINT)


@pytest.mark.parametrize("act", [stop_first_twice, stop_last, interrupt_all])
def test_ranks_that_are_asked_to_stop_save_together(act: Any, corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    pipeline = ["--pipeline-model-parallel-size", 2, "--save-interval", 1000]
    assert forked(*flags(corpus, whole, *pipeline), ranks=2)[0] == [0, 0]
    codes, said = forked(*flags(corpus, run, *pipeline), ranks=2, on_row=(5, act))
    assert codes == [0, 0]
    assert said.count("the same command goes on from here") == 1
    assert not (run / "result.json").exists()
    assert forked(*flags(corpus, run, *pipeline), ranks=2)[0] == [0, 0]
    assert trace(run) == trace(whole)


def stop_all(pids: Pids) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


LONG, SHORT = ["--eval-iters", 1_000_000], ["--eval-iters", 2]


def test_a_validation_is_dropped_for_a_signal_and_made_again(corpus: Path, tmp_path: Path) -> None:
    """The first one and a periodic one, each of which would take minutes; the checkpoint is of that step."""
    valid = write_corpus(tmp_path / "valid", documents=20_000)
    run, whole = tmp_path / "run", tmp_path / "whole"

    def arguments(where: Path, *more: object) -> list[object]:
        steps = ["--train-iters", 5, "--save-interval", 100, "--eval-interval", 3, "--valid-data-path", valid]
        return [*flags(corpus, where, *steps), "--pipeline-model-parallel-size", 2, *more]

    assert forked(*arguments(whole, *SHORT), ranks=2)[0] == [0, 0]
    codes, said = forked(*arguments(run, *LONG), ranks=2, when=((run / "run.json").exists, stop_all))
    assert codes == [0, 0] and said.count("stopped at step 0; the same command goes on from here") == 1
    assert not (run / "latest").exists() and not rows(run, "valid")
    assert forked(*arguments(run, *SHORT, "--exit-interval", 1), ranks=2)[0] == [0, 0]
    codes, said = forked(*arguments(run, *LONG), ranks=2, on_row=(lines(run) + 2, stop_last))
    assert codes == [0, 0] and "stopped at step 3, saved" in said, said
    newest = read_latest(run)
    assert newest is not None and newest[1].iteration == 3
    assert [row["iteration"] for row in rows(run, "valid")] == [0]
    assert forked(*arguments(run, *SHORT), ranks=2)[0] == [0, 0]
    assert story(run) == story(whole)


def test_stopped_where_it_validates_and_prunes(corpus: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert forked(*compression(corpus, whole))[0] == [0]
    assert [row["iteration"] for row in rows(whole, "valid")] == [0, 2, 4, 4, 5]  # before and after the last removal
    for step in (2, 4):
        assert forked(*compression(corpus, run), "--exit-interval", step)[0] == [0]
    assert forked(*compression(corpus, run))[0] == [0]
    assert story(run) == story(whole)


@pytest.mark.slow
def test_a_torchrun_that_is_asked_to_stop_lets_its_ranks_save(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(corpus, run, "--train-iters", 100_000, "--save-interval", 1_000_000)
    with open(tmp_path / "said", "wb") as file:  # noqa: PTH123
        job = subprocess.Popen(command(*arguments, ranks=2), env=environment(), cwd=ROOT, stdout=file, stderr=file)
    while lines(run) < 8 and job.poll() is None:
        time.sleep(0.005)
    job.send_signal(signal.SIGTERM)
    job.wait(60)  # its own exit code says that it got a signal
    said = (tmp_path / "said").read_text()
    assert said.count("the same command goes on from here") == 1, said[-3000:]
    assert "forcefully exiting" not in said
    newest = read_latest(run)
    assert newest is not None and newest[1].iteration == trace(run)[-1][0]


def test_a_gradient_that_is_not_finite_ends_all_ranks_and_is_said_once(corpus: Path, tmp_path: Path) -> None:
    arguments = flags(corpus, tmp_path / "run", "--lr", "1e20", "--max-nan-steps", 3)
    codes, said = forked(*arguments, ranks=2)
    assert codes == [3, 3]
    assert said.count("the gradient was not finite for 3 steps in a row") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("left", "says"), [(200_000, "iter_0000006 could not be written (it needs"), (0, "the metrics in")]
)
def test_a_full_disk_ends_two_ranks_with_a_sentence(
    left: int, says: str, corpus: Path, small_disk: Path, tmp_path: Path
) -> None:
    run, whole = small_disk / "run", tmp_path / "whole"
    steps = ["--train-iters", 8, "--save-interval", 2]
    assert forked(*flags(corpus, whole, *steps), ranks=2)[0] == [0, 0]
    assert forked(*flags(corpus, run, *steps, "--exit-interval", 4), ranks=2)[0] == [0, 0]
    (small_disk / "hog").write_bytes(os.urandom(shutil.disk_usage(small_disk).free - left))
    codes, said = forked(*flags(corpus, run, *steps), ranks=2)
    assert codes == [1, 1]
    complaints = [line for line in said.splitlines() if line.startswith("pretrain_distill.py: ")]
    assert len(complaints) == 1 and says in complaints[0]
    assert "Traceback" not in said
    newest = read_latest(run)
    assert newest is not None and newest[1].iteration == 4
    (small_disk / "hog").unlink()
    assert forked(*flags(corpus, run, *steps), ranks=2)[0] == [0, 0]
    assert trace(run) == trace(whole)


def test_a_second_run_in_the_same_folder_is_refused(corpus: Path, tmp_path: Path) -> None:
    run, second = tmp_path / "run", []

    def start_another(pids: Pids) -> None:
        os.kill(pids[0], signal.SIGSTOP)
        second.append(subprocess.run(command(*flags(corpus, run)), env=environment(), capture_output=True, text=True))
        os.kill(pids[0], signal.SIGCONT)

    assert forked(*flags(corpus, run), on_row=(3, start_another))[0] == [0]
    assert second[0].returncode == 2
    assert second[0].stderr.startswith(f"pretrain_distill.py: another run is writing to {run}")
    assert second[0].stderr.count("\n") == 1
    assert [row[0] for row in trace(run)] == list(range(1, 31))


def test_a_finished_run_is_left_as_it_is(ended: Path, corpus: Path) -> None:
    before = {p: p.read_bytes() for p in ended.rglob("*") if p.is_file()}
    codes, said = forked(*flags(corpus, ended, "--train-iters", 4))
    assert codes == [0]
    assert said == f"{ended} is finished, all of its 4 steps are taken\n"
    assert {p: p.read_bytes() for p in ended.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("old", ['{"iterations": 2}', "[]", "{", None])
def test_an_end_that_was_not_written_down_is_written_by_the_next_start(
    old: str | None, ended: Path, finished: Path, corpus: Path
) -> None:
    if old is None:
        (ended / "result.json").unlink()
    else:
        (ended / "result.json").write_text(old)
    assert forked(*flags(corpus, ended, "--train-iters", 4))[0] == [0]
    assert story(ended) == story(finished)


def test_a_longer_run_goes_on_and_says_so(ended: Path, corpus: Path) -> None:
    longer = flags(corpus, ended, "--train-iters", 40, "--exit-interval", 6)
    said = refused(*longer)
    assert "follows a learning rate over 4 steps, not 40: at step 5 it would go from 0.0003 to 0.00" in said
    assert "or another --save folder with --load" in said
    assert (ended / "result.json").exists()
    codes, said = forked(*longer, "--override-lr-schedule")
    assert codes == [0]
    assert "flags differ from the last start: now --train-iters 40 --exit-interval 6 " in said
    assert [row[0] for row in trace(ended)] == [1, 2, 3, 4, 5, 6]
    assert not (ended / "result.json").exists()  # of the shorter run


def test_a_finished_run_that_a_full_disk_keeps_from_going_on_stays_finished(corpus: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    assert forked(*flags(corpus, run, "--train-iters", 2))[0] == [0]
    before = (run / "result.json").read_bytes(), (run / "run.json").read_bytes(), (run / "metrics.jsonl").read_bytes()
    (small_disk / "hog").write_bytes(os.urandom(shutil.disk_usage(small_disk).free))
    codes, said = forked(*flags(corpus, run, "--train-iters", 8, "--override-lr-schedule"))
    assert codes == [1] and "Traceback" not in said
    assert ((run / "result.json").read_bytes(), (run / "run.json").read_bytes()) == before[:2]
    assert (run / "metrics.jsonl").read_bytes() == before[2]


def test_lines_of_metrics_that_are_none(ended: Path, corpus: Path) -> None:
    with (ended / "metrics.jsonl").open("ab") as file:
        file.write(b'5\n\xff\xfe\n\n{"kind": "train"}\n{"iteration": "x", "kind": 1}\n{"kind": "train", "iterat')
    assert forked(*flags(corpus, ended, "--train-iters", 6, "--override-lr-schedule"))[0] == [0]
    assert [row[0] for row in trace(ended)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--seed", 5], "trained with --seed 1234, not 5"),
        (["--global-batch-size", 8], "trained with --global-batch-size 4, not 8"),
        (["--seq-length", 16], "trained with --seq-length 32, not 16"),
        (["--split", "90,10,0"], "trained with --split 969,30,1, not 90,10,0"),
        (["--precision", "bf16"], "was trained in float32; give --precision fp32"),
        (["--train-iters", 3], "has taken 4 steps, more than the 3 of this run"),
        (
            ["--data-path", "other"],
            "--data-path with 8000 tokens in 40 documents, not with 6000 tokens in 30 documents",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_would_make_another_run_of_it_is_refused(
    change: list[object], says: str, ended: Path, corpus: Path, tmp_path: Path
) -> None:
    if "other" in change:
        change = ["--data-path", write_corpus(tmp_path / "other", documents=30)]
    assert says in refused(*flags(corpus, ended, "--train-iters", 8, "--override-lr-schedule", *change))


def test_the_corpus_may_move_and_the_layout_may_change(ended: Path, corpus: Path, tmp_path: Path) -> None:
    for kind in ("bin", "idx"):
        shutil.copy(f"{corpus}.{kind}", tmp_path / f"moved.{kind}")
    moved = flags(tmp_path / "moved", ended, "--train-iters", 6, "--micro-batch-size", 1, "--override-lr-schedule")
    assert forked(*moved, "--tensor-model-parallel-size", 2, ranks=2)[0] == [0, 0]


def test_a_folder_that_cannot_be_written_to(ended: Path, corpus: Path) -> None:
    (ended / ".lock").unlink()
    (ended / ".lock").mkdir()
    assert ".lock is a folder, and a run keeps a file there" in refused(
        *flags(corpus, ended, "--train-iters", 8, "--override-lr-schedule")
    )
