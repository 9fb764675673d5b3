"""Distillation runs as a user starts them: teachers on ranks of their own, interrupted, killed, in every form."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Pids, forked
from tests.support.public_models import save_public_model
from tests.support.ranks import launch
from tests.support.runs import ROOT, SMALL, environment, result, rows, trace
from tests.support.tools import run_tool

TOKENS = 4 * 32
"""Of a step."""
TWO = ["--tensor-model-parallel-size", 2]


def flags(corpus: Path, base: Path, run: Path, *more: object, placement: str = "separate") -> list[object]:
    """A distillation of 4 steps; later flags win."""
    return [
        *(*SMALL, "--data-path", corpus, "--load", base, "--save", run, "--train-iters", 4, "--eval-iters", 1),
        *("--teacher-placement", placement, "--loss", "vanilla", *more),
    ]


REMOVALS = [
    *("--train-iters", 10, "--pruning-layout", "max-gap", "--pruning-num-layers", 3),
    *("--pruning-seed-tokens", 3 * TOKENS, "--pruning-gap-tokens", 2 * TOKENS),
]
"""3 steps of seed phase, layers that leave before steps 4, 6 and 8 of 10."""


def compression(corpus: Path, base: Path, run: Path) -> list[object]:
    """A distillation with removals, of losses on every part of the model."""
    losses = ["--loss", "vanilla", "minilm", "hidden-states", "--distributed-timeout-minutes", 0.5]
    return flags(corpus, base, run, *REMOVALS, *losses)


def well(*arguments: object, ranks: int = 2) -> str:
    """A run that must end well; what it said."""
    codes, said = forked(*arguments, ranks=ranks)
    assert codes == [0] * ranks, said[-3000:]
    return said


def story(run: Path) -> list[dict[str, Any]]:
    """Every number of every step, removal and validation that no clock made."""
    clocks = ("time", "tokens_per_s", "mfu", "teacher_wait")
    told = [row for kind in ("train", "valid", "removal") for row in rows(run, kind)]
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in told]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path, base_run: Path) -> Path:
    """The compression, never interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    well(*compression(corpus, base_run, run))
    return run


def test_stopped_at_any_step_it_ends_the_same(whole: Path, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    """In the seed phase, at its end, after the first layer left, before the last leaves, after."""
    arguments = compression(corpus, base_run, tmp_path / "run")
    for step in (2, 3, 4, 7, 9):
        assert f"stopped at step {step}, saved" in well(*arguments, "--exit-interval", step)
    well(*arguments)
    assert story(tmp_path / "run") == story(whole)


def test_the_seed_phase_has_no_teacher(whole: Path, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    alone = [*SMALL, "--data-path", corpus, "--load", base_run, "--save", tmp_path / "run", *REMOVALS]
    well(*alone, "--exit-interval", 4, ranks=1)
    assert trace(tmp_path / "run")[:3] == trace(whole)[:3]
    assert trace(tmp_path / "run")[3] != trace(whole)[3]
    assert [any(name.startswith("kd/") for name in row) for row in rows(whole)] == [False] * 3 + [True] * 7


def kill(rank: int) -> Any:
    """Kill a rank of the job."""
    return lambda pids: os.kill(pids[rank], signal.SIGKILL)


def test_a_rank_that_is_killed_is_named_and_the_job_goes_on(
    whole: Path, corpus: Path, base_run: Path, tmp_path: Path
) -> None:
    """The teacher in the gaps, then the student: the others end by themselves, in time."""
    arguments = [*compression(corpus, base_run, tmp_path / "run"), "--save-interval", 2]
    codes, said = forked(*arguments, ranks=2, on_row=(8, kill(1)))
    assert codes == [1, -signal.SIGKILL], said
    assert "pretrain_distill.py: teacher rank 0 (rank 1 of the job) is gone" in said and "Traceback" not in said
    codes, said = forked(*arguments, ranks=2, on_row=(11, kill(0)))
    assert codes == [-signal.SIGKILL, 1], said
    assert "pretrain_distill.py: student rank 0 (rank 0 of the job) is gone" in said and "Traceback" not in said
    well(*arguments)
    assert story(tmp_path / "run") == story(whole)


def test_a_teacher_that_stands_still_is_named(corpus: Path, base_run: Path, tmp_path: Path) -> None:
    def stop(pids: Pids) -> None:
        os.kill(pids[1], signal.SIGSTOP)

    arguments = flags(corpus, base_run, tmp_path / "run", "--train-iters", 10_000)
    codes, said = forked(*arguments, "--distributed-timeout-minutes", 0.05, ranks=2, on_row=(4, stop))
    assert codes[0] == 1, said
    assert "nothing came from teacher rank 0 (rank 1 of the job) for 0.05 minutes" in said


@pytest.mark.parametrize("asked", [[0], [1], [0, 1]], ids=["student", "teacher", "both"])
def test_asked_to_stop_both_roles_end_well(asked: list[int], corpus: Path, base_run: Path, tmp_path: Path) -> None:
    def ask(pids: Pids) -> None:
        for rank in asked:
            os.kill(pids[rank], signal.SIGTERM)

    arguments = flags(corpus, base_run, tmp_path / "run", "--train-iters", 80, "--save-interval", 1000)
    codes, said = forked(*arguments, ranks=2, on_row=(4, ask))
    assert codes == [0, 0], said
    assert said.count("the same command goes on from here") == 1


def test_ranks_that_give_up_together_end_the_teacher_too(corpus: Path, base_run: Path, tmp_path: Path) -> None:
    arguments = flags(corpus, base_run, tmp_path / "run", "--lr", "1e20", "--max-nan-steps", 2, "--train-iters", 20)
    codes, said = forked(*arguments, ranks=2)
    assert codes == [3, 0], said
    assert said.count("the gradient was not finite for 2 steps in a row") == 1 and "is gone" not in said


LOST = {  # the rank that dies, of how many, the layout, who is named
    "one of the teacher's two ranks": (2, 3, ["--teacher-tensor-model-parallel-size", 2], "teacher rank"),
    "the teacher's second stage": (2, 3, ["--teacher-pipeline-model-parallel-size", 2], "teacher rank 1"),
    "the student's first stage": (0, 3, ["--pipeline-model-parallel-size", 2], "student rank"),
}


@pytest.mark.parametrize("which", LOST)
def test_no_layout_hangs_when_a_rank_is_killed(which: str, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    rank, size, layout, named = LOST[which]
    arguments = flags(corpus, base_run, tmp_path / "run", "--train-iters", 10_000, *layout)
    codes, said = forked(*arguments, ranks=size, on_row=(4, kill(rank)))
    assert codes[rank] == -signal.SIGKILL
    assert [code for number, code in enumerate(codes) if number != rank] == [1, 1], said
    assert f"pretrain_distill.py: {named}" in said


def test_a_role_that_never_comes_is_named(corpus: Path, base_run: Path, tmp_path: Path) -> None:
    arguments = flags(corpus, base_run, tmp_path / "run", "--distributed-timeout-minutes", 0.05)
    codes, said = forked(*arguments, ranks=2, absent=1)
    assert codes[0] == 1, said
    assert said == "pretrain_distill.py: not all of the 2 ranks of the job came within 0.05 minutes; see the others\n"


EVERYTHING = ["vanilla", "minilm", "hidden-states", "embedding-table", "attention-scores"]


@pytest.mark.parametrize("placement", ["separate", "colocated"])
def test_distilled_from_itself_nothing_differs(placement: str, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    arguments = flags(corpus, base_run, tmp_path / "run", "--train-iters", 2, placement=placement)
    well(*arguments, "--loss", *EVERYTHING, ranks=2 if placement == "separate" else 1)
    first, second = rows(tmp_path / "run")
    names = [name for name in first if name.startswith("kd/")]
    assert sorted(names) == ["kd/attention", "kd/embedding", "kd/hidden", "kd/logits", "kd/qk", "kd/vv"]
    assert all(first[name] == 0 for name in names)
    assert all(second[name] > 0 for name in names)


def test_the_largest_logits_alone(corpus: Path, base_run: Path, tmp_path: Path) -> None:
    """All of them are the logits; a few give a smaller divergence that sinks as well."""
    pruned = ["--pruning-layout", "1,4", "--loss", "vanilla:temperature=2"]
    for name, more in (("logits", ()), ("topk", ("--bridge-top-k", 64)), ("few", ("--bridge-top-k", 4))):
        wire = "logits" if name == "logits" else "topk"
        well(*flags(corpus, base_run, tmp_path / name, *pruned, "--bridge-wire", wire, *more))
    logits, topk, few = (rows(tmp_path / name) for name in ("logits", "topk", "few"))
    for a, b in zip(logits, topk, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["kd/logits"] == pytest.approx(a["kd/logits"], rel=1e-5)
    assert 0 < few[0]["kd/logits"] < logits[0]["kd/logits"]
    assert few[-1]["kd/logits"] < few[0]["kd/logits"]


def make_llama(rank: int, tmp_path: Path) -> None:
    save_public_model("llama", tmp_path / "theirs")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped queries, untied matrices, 75 tokens in padded rows."""
    folder = tmp_path_factory.mktemp("llama")
    launch(make_llama, 1, 60.0, folder, {})
    run_tool("convert_checkpoint", "from-hf", folder / "theirs", folder / "ours")
    return folder / "ours"


def test_a_public_model_is_the_same_in_every_place(corpus: Path, llama: Path, tmp_path: Path) -> None:
    """A student of TP 2 with a teacher in its processes, on one rank, and on two that send their largest logits."""
    arguments = ["--pruning-layout", "1,2", "--loss", *EVERYTHING, "--optimizer", "adamw", "--decay-semantics", "lr"]
    arguments += TWO
    well(*flags(corpus, llama, tmp_path / "here", *arguments, placement="colocated"))
    well(*flags(corpus, llama, tmp_path / "one", *arguments), ranks=3)
    topk = ["--teacher-tensor-model-parallel-size", 2, "--bridge-wire", "topk", "--bridge-top-k", 75]
    well(*flags(corpus, llama, tmp_path / "topk", *arguments, *topk), ranks=4)
    wanted = rows(tmp_path / "here")
    assert len(wanted) == 4
    for name in ("one", "topk"):
        for a, b in zip(rows(tmp_path / name), wanted, strict=True):
            for key in (key for key in b if key in ("loss", "grad_norm") or key.startswith("kd/")):
                assert a[key] == pytest.approx(b[key], rel=1e-4), (name, key)


FORMS = {
    "without the cross-entropy": ["--lm-weight", 0],
    "not normalised": ["--no-normalise-losses", "--loss", "vanilla:weight=100"],
    "bf16, sequence parallel, recomputed": [
        *("--precision", "bf16", *TWO, "--sequence-parallel", "--recompute-granularity", "full"),
        *("--loss", *EVERYTHING),
    ],
    "validated on two stages": ["--pipeline-model-parallel-size", 2, "--eval-interval", 2, "--loss", *EVERYTHING],
}


@pytest.mark.parametrize("form", FORMS)
def test_it_learns_in_every_form(form: str, corpus: Path, base_run: Path, tmp_path: Path) -> None:
    arguments = flags(corpus, base_run, tmp_path / "run", "--pruning-layout", "1,4", "--train-iters", 10, *FORMS[form])
    well(*arguments, ranks=3 if "parallel" in form or "stages" in form else 2)
    told = rows(tmp_path / "run")
    assert told[-1]["kd/logits"] < 0.8 * told[0]["kd/logits"]
    assert result(tmp_path / "run")["perplexity"] < result(tmp_path / "run")["initial_perplexity"]


@pytest.mark.slow
def test_a_teacher_on_another_node(corpus: Path, base_run: Path, tmp_path: Path) -> None:
    """Two torchrun agents, the student's rank with one and the teacher's with the other."""
    well(*flags(corpus, base_run, tmp_path / "one", "--pruning-layout", "1,4"))
    train = list(map(str, flags(corpus, base_run, tmp_path / "two", "--pruning-layout", "1,4")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    agents = [
        subprocess.Popen(
            [*torchrun, "--node-rank", node, str(ROOT / "pretrain_distill.py"), *train],
            **{"env": environment(), "cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True},
        )
        for node in "01"
    ]
    said = [agent.communicate(timeout=120)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "for the teacher" in said[0] and "training for" not in said[1]
    assert story(tmp_path / "two") == story(tmp_path / "one")
