"""What a run tells, and what is left of it after a crash."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from megatron_distill.config.flags import parse
from megatron_distill.config.run import RunConfig
from megatron_distill.parallel.worlds import Role, World
from megatron_distill.training.metrics import Metrics
from megatron_distill.training.plan import RunPlan, make_plan
from megatron_distill.training.state import StepResult, TrainState
from tests.support.runs import MODEL, ROOT, SMALL, rows


def plan(run: Path, *flags: object, start: int = 0) -> RunPlan:
    """A run of 20 steps of which `start` are done."""
    common = [*MODEL, *SMALL, "--train-iters", 20, "--save", run, "--dry-run", *flags]
    resolved = make_plan(parse(RunConfig, [str(flag) for flag in common]), world_size=1)
    resume_from = run / "checkpoints" / f"iter_{start:07d}" if start else None
    return dataclasses.replace(resolved, start=start, resume_from=resume_from)


def opened(resolved: RunPlan, state: TrainState, *, rank: int = 0) -> Metrics:
    """Metrics of a rank."""
    return Metrics(resolved, World(Role("student", resolved.layout), rank, rank), state)


def steps(resolved: RunPlan, losses: list[float], *, rank: int = 0) -> TrainState:
    """A run from `plan.start` on with these losses, half a second and 128 tokens a step."""
    state = TrainState(iteration=resolved.start, consumed_tokens=128 * resolved.start)
    with opened(resolved, state, rank=rank) as metrics:
        for loss in losses:
            state.iteration += 1
            state.consumed_tokens += 128
            state.flops += 1e6
            state.seconds += 0.5
            finite = loss == loss
            state.skipped_steps += not finite
            metrics.step(state, StepResult(loss, 128, 2 * loss, skipped=not finite, stop=False), lr=1e-3)
    return state


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_a_line_a_step(tmp_path: Path) -> None:
    steps(plan(tmp_path), [3.0, 2.0])
    first, second = rows(tmp_path)
    assert (first["iteration"], second["iteration"]) == (1, 2)
    assert (second["loss"], second["grad_norm"], second["lr"], second["skipped_steps"]) == (2.0, 4.0, 1e-3, 0)
    assert (second["consumed_tokens"], second["flops"], second["tokens_per_s"]) == (256, 2e6, 256.0)


def test_a_line_every_few_steps_holds_their_mean(tmp_path: Path) -> None:
    steps(plan(tmp_path, "--log-interval", 3, "--train-iters", 5), [6.0, 3.0, 3.0, 2.0, 1.0])
    assert [(row["iteration"], row["loss"]) for row in rows(tmp_path)] == [(3, 4.0), (5, 1.5)]
    assert [row["tokens_per_s"] for row in rows(tmp_path)] == [256.0, 256.0]


def test_a_loss_that_is_no_number_is_a_string_in_valid_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps(plan(tmp_path), [3.0, float("nan"), float("inf"), float("-inf")])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["loss"] for row in values] == [3.0, "nan", "inf", "-inf"]
    assert [row["skipped_steps"] for row in values] == [0, 1, 1, 1]
    assert "step 2: gradient norm nan, loss nan; nothing updated" in capsys.readouterr().out


def test_after_a_crash_forgotten_and_half_lines_are_gone(tmp_path: Path) -> None:
    steps(plan(tmp_path), [9.0] * 6)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "iteration": 4, "lo')
    steps(plan(tmp_path, start=4), [1.0] * 3)
    assert [(r["iteration"], r["loss"]) for r in rows(tmp_path)] == [*((i, 9.0) for i in range(1, 5))] + [
        (5, 1.0),
        (6, 1.0),
        (7, 1.0),
    ]


def test_a_half_line_in_the_middle_is_gone_too(tmp_path: Path) -> None:
    steps(plan(tmp_path), [9.0, 9.0])
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:30]}\n{second}\n")
    steps(plan(tmp_path, start=2), [1.0])
    assert path.read_text().splitlines()[:2] == [first, second]
    assert len(rows(tmp_path)) == 3


def test_a_run_that_saved_nothing_begins_its_file_anew(tmp_path: Path) -> None:
    steps(plan(tmp_path), [9.0] * 3)
    steps(plan(tmp_path), [1.0])
    assert [row["loss"] for row in rows(tmp_path)] == [1.0]


def test_a_removal_that_will_happen_again_is_forgotten(tmp_path: Path) -> None:
    """The newest checkpoint is from before layers left at its step, so what was said since then will be said again."""
    state = TrainState(iteration=4, perplexity=8.0, validated_at=4)
    with opened(plan(tmp_path), TrainState()) as metrics:
        metrics.validation(state, 2.0)
        metrics.removed(state, [1], (0, 2, 3))
        metrics.validation(state, 3.0)
    with opened(plan(tmp_path, start=4), state):
        pass
    assert [(r["kind"], r["loss"]) for r in rows(tmp_path, "valid")] == [("valid", 2.0)]
    assert rows(tmp_path, "removal") == []
    state.validated_at = 2  # the validation at step 4 was made after the save, so it will be made again
    with opened(plan(tmp_path, start=4), state):
        pass
    assert rows(tmp_path, "valid") == []


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    state = steps(plan(tmp_path), [3.0, 2.0, 1.0])
    curves = scalars(tmp_path)
    assert curves["train/loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curves["train/grad_norm"] == [(1, 6.0), (2, 4.0), (3, 2.0)]
    assert set(curves) == {f"train/{n}" for n in ("loss", "lr", "grad_norm", "tokens_per_s", "skipped_steps")}
    state.perplexity = 8.0
    with opened(plan(tmp_path / "other"), state) as metrics:
        metrics.validation(state, 2.0)
    assert scalars(tmp_path / "other") == {"valid/loss": [(3, 2.0)], "valid/perplexity": [(3, 8.0)]}


def test_tensorboard_forgets_what_the_file_forgets(tmp_path: Path) -> None:
    steps(plan(tmp_path), [9.0] * 6)
    steps(plan(tmp_path, start=4), [1.0] * 3)
    assert scalars(tmp_path)["train/loss"] == [(r["iteration"], r["loss"]) for r in rows(tmp_path)]


def test_tensorboard_forgets_a_run_that_saved_nothing(tmp_path: Path) -> None:
    steps(plan(tmp_path), [9.0] * 3)
    steps(plan(tmp_path), [1.0])
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0)]


def test_tensorboard_is_on_disk_before_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_distill.training.metrics.first_failure", lambda failure: failure)  # one rank alone
    with opened(plan(tmp_path), TrainState()) as metrics:
        metrics.validation(TrainState(iteration=3, perplexity=8.0), 2.0)
        metrics.settle()
        assert scalars(tmp_path)["valid/loss"] == [(3, 2.0)]


def test_result(tmp_path: Path) -> None:
    resolved = plan(tmp_path, "--pruning-layout", "1,2", "--pruning-seed-tokens", 128)
    state = TrainState(iteration=20, consumed_tokens=2560, flops=7e9, paper_tokens=2432, skipped_steps=1, seconds=10.0)
    state.perplexity, state.initial_perplexity = 12.5, 40.0
    with opened(resolved, state) as metrics:
        metrics.result(state)
    found = json.loads((tmp_path / "result.json").read_text())
    parameters = resolved.shape.num_parameters(2)
    assert found.pop("peak_memory_bytes") > 2**20
    assert found == {
        "parameters": parameters,
        "layers": [0, 3],
        "tokens": 2560,
        "flops": 7e9,
        "paper_flops": 6.0 * parameters * 2432,
        "perplexity": 12.5,
        "initial_perplexity": 40.0,
        "iterations": 20,
        "seconds": 10.0,
        "tokens_per_s": 256.0,
        "accelerators": 1,
        "accelerator_hours": 10 / 3600,
        "mfu": None if metrics.peak is None else 7e8 / metrics.peak,
        "skipped_steps": 1,
    }
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("waited", "says"),
    [(0.2, "waited 4.0% of its time for the teacher: the teacher keeps up"), (2.0, "40.0% .* give the teacher more")],
)
def test_the_role_that_the_other_waited_for(
    waited: float, says: str, base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*SMALL, "--load", base_run, "--train-iters", 20, "--save", tmp_path, "--dry-run"]
    common += ["--teacher-placement", "separate", "--loss", "vanilla"]
    resolved = make_plan(parse(RunConfig, [str(flag) for flag in common]), world_size=2)
    state = TrainState(iteration=20, seconds=9.0, taught_seconds=5.0, waited_seconds=waited)
    with opened(resolved, state) as metrics:
        metrics.bridge_bytes = 257.0
        metrics.result(state)
    assert re.search(f"the student .*{says}", capsys.readouterr().out)
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["teacher_wait_seconds"], found["bridge_bytes_per_token"]) == (waited, 257.0)


@pytest.mark.parametrize(("placement", "ranks"), [("none", 1), ("colocated", 1), ("separate", 2)])
def test_utilisation_is_the_same_in_every_place(
    placement: str, ranks: int, base_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of a run, weighted by their times, give result.json's figure: FLOPs and ranks of both roles."""
    monkeypatch.setattr("megatron_distill.parallel.device.peak_flops", lambda: 1e11)
    common = [*SMALL, "--load", base_run, "--train-iters", 6, "--save", tmp_path, "--dry-run", "--log-interval", 2]
    common += ["--pruning-layout", "1", "--pruning-seed-tokens", 3 * 128]  # three steps without a teacher
    if placement != "none":
        common += ["--teacher-placement", placement, "--loss", "vanilla"]
    resolved = make_plan(parse(RunConfig, [str(flag) for flag in common]), world_size=ranks)
    state = TrainState()
    with opened(resolved, state) as metrics:
        for number in range(6):
            state.iteration, state.seconds = number + 1, state.seconds + 0.5 + number
            state.flops += resolved.step_flops(number)
            metrics.step(state, StepResult(1.0, 128, 1.0, skipped=False, stop=False, waited_seconds=0.25), lr=1e-3)
        metrics.result(state)
    seconds = [2.0, 6.0, 10.0]
    live = sum(row["mfu"] * s for row, s in zip(rows(tmp_path), seconds, strict=True)) / sum(seconds)
    found = json.loads((tmp_path / "result.json").read_text())["mfu"]
    if placement != "none":
        waits = [
            (row["teacher_wait_ms"], row["teacher_wait_share"] * s)
            for row, s in zip(rows(tmp_path), seconds, strict=True)
        ]
        assert waits == [pytest.approx((250.0, 0.5))] * 3
    assert live == pytest.approx(found) == state.flops / state.seconds / ranks / 1e11


def test_only_the_first_rank_writes_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolved = plan(tmp_path / "run")
    state = steps(resolved, [3.0, float("nan")], rank=1)
    with opened(resolved, state, rank=1) as metrics:
        metrics.validation(dataclasses.replace(state, perplexity=8.0), 2.0)
        metrics.removed(state, [1], (0, 2, 3))
        metrics.saved(tmp_path)
        metrics.result(state)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_provenance_is_enough_to_run_again(tmp_path: Path) -> None:
    resolved = plan(tmp_path, "--lr", 2e-3, "--pruning-layout", "1", start=3)
    with opened(resolved, TrainState(iteration=3)):
        pass
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["config"] == json.loads(json.dumps(dataclasses.asdict(resolved.config)))
    assert found["shape"] == dataclasses.asdict(resolved.shape)
    assert found["layout"] == {"tensor": 1, "pipeline": 1, "data": 1, "num_microbatches": 2}
    assert (found["total_iters"], found["removed_layers"], found["resumed_at"]) == (20, [1], 3)
    assert {"megatron_distill", "python", "torch", "megatron-core", "numpy"} <= found["versions"].keys()
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    assert found["commit"] == (subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None)
    assert parse(RunConfig, [f"@{tmp_path / 'flags.txt'}"]) == resolved.config


def test_weights_and_biases_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class FakeRun:
        """What wandb.init gives."""

        def log(self, numbers: dict[str, float], step: int) -> None:
            calls.append(("log", (step, numbers)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**options: Any) -> FakeRun:
        calls.append(("init", options))
        return FakeRun()

    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    resolved = plan(tmp_path / "run", "--wandb-project", "halves")
    steps(resolved, [3.0, 2.0])
    (_, options), *logged, (last, _) = calls
    calls.clear()
    steps(dataclasses.replace(resolved, resume_from=tmp_path, start=2), [1.0])
    steps(resolved, [4.0])
    first, again, anew = (options["id"], *(o["id"] for kind, o in calls if kind == "init"))
    assert first == again != anew, "a start that resumes goes into the same run, one that begins anew does not"
    assert options["resume"] == "allow"
    assert (options["project"], options["name"], last) == ("halves", "run", "finish")
    assert options["config"] == dataclasses.asdict(resolved.config)
    assert [(step, numbers["train/loss"]) for _, (step, numbers) in logged] == [(1, 3.0), (2, 2.0)]
