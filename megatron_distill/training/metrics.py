"""What a run tells: a progress line, metrics.jsonl, TensorBoard, Weights & Biases, and result.json at the end."""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from megatron_distill.config.error import ConfigError, disk_hint
from megatron_distill.config.flags import to_flags
from megatron_distill.data.whole_file import write_whole
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import FailedTogether, World, first_failure

from .metrics_lines import cut_after
from .plan import RunPlan
from .provenance import commit, versions
from .state import StepResult, TrainState
from .student import Student

_BALANCED = 0.05
"""A share of waiting that no other split of the ranks would do much about."""


class Metrics:
    """The voice of a run; only the first rank speaks and writes, every rank may call."""

    def __init__(self, plan: RunPlan, world: World, state: TrainState) -> None:
        self.plan, self.speaks = plan, world.is_first
        self.run = Path(plan.config.checkpoint.save)
        self.ranks = plan.layout.world_size
        self.peak = device.peak_flops()
        self.seconds_before, self.validated_at = state.seconds, state.validated_at
        self.bridge_bytes = 0.0
        self.lines: TextIO | None = None
        self.board: Any = None
        self.wandb: Any = None
        self.live = sys.stdout.isatty()
        self.failure: Exception | None = None
        """Why what was told is not on disk; `settle` raises it."""

    def __enter__(self) -> Metrics:
        if self.speaks:
            try:
                self._open()
            except (OSError, ConfigError) as error:
                self.failure = error
        return self

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        plan = self.plan
        self.run.mkdir(parents=True, exist_ok=True)
        begins_at = plan.start if plan.resume_from else -1
        if damaged := cut_after(self.run / "metrics.jsonl", begins_at, self.validated_at):
            self.say(damaged)
        self.lines = (self.run / "metrics.jsonl").open("a")
        # TensorBoard purges this step too, so the first one to come; of a run that starts anew, everything.
        purge = plan.start + 1 if plan.resume_from else 0
        self.board = SummaryWriter(str(self.run / "tensorboard"), purge_step=purge)
        project = self.plan.config.logging.wandb_project
        if project:
            self.wandb = _wandb(project, self.run, asdict(self.plan.config), resumes=plan.resume_from is not None)
        if plan.resume_from:
            self._say_what_changed(self.run / "flags.txt")
        write_whole(self.run / "flags.txt", "\n".join(to_flags(plan.config)) + "\n")
        write_whole(self.run / "run.json", json.dumps(self._provenance(), indent=1))

    def __exit__(self, *exc: object) -> None:
        for file in (self.lines, self.board):
            with suppress(OSError):  # `settle` has seen to what must be on disk
                if file:
                    file.close()
        if self.wandb:
            self.wandb.finish()

    def say(self, text: str) -> None:
        """One line for a person."""
        if self.speaks:
            self._print(("\r\033[K" if self.live else "") + text + "\n")

    def settle(self) -> None:
        """Bring what was told to the disk, before a checkpoint makes it final. Collective over the role.

        Raises:
            FailedTogether: it could not be written, now or earlier.
        """
        if self.lines and self.failure is None:
            try:
                os.fsync(self.lines.fileno())
                self.board.flush()
            except OSError as error:
                self.failure = error
        failure = first_failure("" if self.failure is None else str(self.failure))
        if failure:
            raise FailedTogether(f"the metrics in {self.run} could not be written ({failure}){disk_hint(failure)}")

    def start(self, student: Student, bridge_bytes: float = 0.0) -> None:
        """Where the run begins; `bridge_bytes` cross the bridge for a token."""
        plan, self.bridge_bytes = self.plan, bridge_bytes
        verb = f"resuming at step {plan.start} of" if plan.resume_from else "training for"
        origin = f", weights from {plan.load_from}" if plan.load_from else ""
        options = student.model.config
        self.say(
            f"{verb} {plan.total_iters} steps of {plan.tokens_per_iter:,} tokens: "
            f"{plan.shape.num_parameters(len(student.layers)):,} parameters, {len(student.layers)} layers"
            f"{f' ({len(student.frozen)} frozen, to be removed)' if student.frozen else ''}{origin}; "
            f"{self.ranks} x {device.name()}, TP {plan.layout.tensor} PP {plan.layout.pipeline} DP {plan.layout.data}, "
            f"{str(options.params_dtype).removeprefix('torch.')}, attention by {_backend(student)}"
        )
        teacher = plan.teacher
        if teacher is not None:
            lay = teacher.layout
            where = "in the same processes"
            if teacher.separate:
                where = f"on {lay.world_size} of the job's ranks, TP {lay.tensor} PP {lay.pipeline} DP {lay.data}, "
                where += f"{bridge_bytes:,.0f} bytes a token"
            since = f" from step {plan.distils_from} on" if plan.distils_from else ""
            self.say(f"teacher {teacher.checkpoint}: {teacher.description}{since}, {where}")

    def step(self, state: TrainState, result: StepResult, lr: float) -> None:
        """After every optimizer step; writes a line every --log-interval steps."""
        if state.unlogged_steps == 0 and self.speaks and self.failure is None:
            (self.run / "result.json").unlink(missing_ok=True)  # of an end that is no longer the end
        state.unlogged_steps += 1
        state.unlogged_flops += self.plan.step_flops(state.iteration - 1)
        state.unlogged_seconds += state.seconds - self.seconds_before
        state.unlogged_loss += result.loss * result.num_tokens
        state.unlogged_tokens += result.num_tokens
        state.unlogged_wait += result.waited_seconds
        for name, mean in result.components.items():
            before = state.unlogged_components.get(name, 0.0)
            state.unlogged_components[name] = before + mean * result.num_tokens
        self.seconds_before = state.seconds
        if result.skipped:
            self.say(f"step {state.iteration}: gradient norm {result.grad_norm}, loss {result.loss}; nothing updated")
        if state.iteration % self.plan.config.logging.log_interval and state.iteration != self.plan.total_iters:
            return
        rate = self.plan.tokens_per_iter * state.unlogged_steps / state.unlogged_seconds
        row = {
            "loss": state.unlogged_loss / max(state.unlogged_tokens, 1),
            "lr": lr,
            "grad_norm": result.grad_norm,
            "tokens_per_s": rate,
            "mfu": self._utilisation(state),
            "skipped_steps": state.skipped_steps,
        } | self._of_teacher(state)
        state.unlogged_steps, state.unlogged_seconds, state.unlogged_loss, state.unlogged_tokens = 0, 0.0, 0.0, 0
        state.unlogged_components, state.unlogged_wait, state.unlogged_flops = {}, 0.0, 0.0
        self._write("train", state, row)
        self._progress(state, row)

    def _of_teacher(self, state: TrainState) -> dict[str, float]:
        """Components, their scales, and the share of the time that was spent waiting for the teacher."""
        if self.plan.teacher is None:
            return {}
        means = {f"kd/{name}": x / max(state.unlogged_tokens, 1) for name, x in state.unlogged_components.items()}
        scales = self.plan.normalisation.scales(state.component_means) if state.component_means else {}
        scales = {f"scale/{name}": scale for name, scale in scales.items()}
        return (
            means
            | scales
            | {
                "teacher_wait_ms": 1000 * state.unlogged_wait / state.unlogged_steps,
                "teacher_wait_share": state.unlogged_wait / state.unlogged_seconds,
            }
        )

    def validation(self, state: TrainState, loss: float) -> None:
        """After a validation."""
        self._write("valid", state, {"loss": loss, "perplexity": state.perplexity})
        self.say(f"step {state.iteration}: validation perplexity {state.perplexity:.4g} (loss {loss:.4f})")

    def saved(self, folder: Path) -> None:
        """After a checkpoint."""
        self.say(f"saved {folder}")

    def removed(self, state: TrainState, gone: list[int], kept: tuple[int, ...]) -> None:
        """After layers left."""
        parameters = self.plan.shape.num_parameters(len(kept))
        self._write("removal", state, {"removed": gone, "layers": list(kept), "parameters": parameters})
        names = ", ".join(map(str, gone))
        self.say(f"step {state.iteration}: layers {names} removed, {len(kept)} stay, {parameters:,} parameters")

    def result(self, state: TrainState) -> None:
        """At the end of a finished run: `result.json`, and which role the other one waited for."""
        if not self.speaks:
            return
        taught = self.plan.teacher is not None and self.plan.teacher.separate and state.taught_seconds > 0
        if taught:
            self.say(_bottleneck(state.waited_seconds / state.taught_seconds))
        parameters = self.plan.shape.num_parameters(len(self.plan.layers_at(state.iteration)))
        ranks = self.plan.num_ranks
        busy = state.flops / max(state.seconds, 1e-9) / ranks
        values = {
            "parameters": parameters,
            "layers": list(self.plan.layers_at(state.iteration)),
            "tokens": state.consumed_tokens,
            "flops": state.flops,
            "paper_flops": self.plan.paper_flops(state.paper_tokens),
            "perplexity": state.perplexity,
            "initial_perplexity": state.initial_perplexity,
            "iterations": state.iteration,
            "seconds": state.seconds,
            "tokens_per_s": state.consumed_tokens / max(state.seconds, 1e-9),
            "accelerators": ranks,
            "accelerator_hours": state.seconds * ranks / 3600,
            "mfu": busy / self.peak if self.peak else None,
            "skipped_steps": state.skipped_steps,
            "peak_memory_bytes": device.peak_memory_bytes(),
        }
        if taught:
            values |= {"teacher_wait_seconds": state.waited_seconds, "bridge_bytes_per_token": self.bridge_bytes}
        write_whole(self.run / "result.json", json.dumps(values, indent=1))

    def _write(self, kind: str, state: TrainState, values: dict[str, Any]) -> None:
        if self.lines is None or self.failure is not None:
            return
        row = {"kind": kind, "iteration": state.iteration, "consumed_tokens": state.consumed_tokens}
        row |= {"flops": state.flops, "time": time.time(), **values}
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        try:
            self.lines.write(json.dumps({k: _plain(v) for k, v in row.items()}) + "\n")
            self.lines.flush()
            for name, value in numbers.items():
                self.board.add_scalar(name, value, state.iteration)
        except OSError as error:  # of this rank alone; `settle` tells the others, so that none waits for it
            self.failure = error
        if self.wandb:
            self.wandb.log(numbers, step=state.iteration)

    def _say_what_changed(self, before: Path) -> None:
        """Flags that are not those of the last start, in a line."""
        if not before.exists():
            return
        old, new = before.read_text(errors="replace").splitlines(), to_flags(self.plan.config)
        gone, come = ([flag for flag in a if flag not in b] for a, b in ((old, new), (new, old)))
        if gone or come:
            self.say(f"flags differ from the last start: now {' '.join(come) or '-'}, before {' '.join(gone) or '-'}")

    def _print(self, text: str) -> None:
        try:
            print(text, end="", flush=True)
        except OSError:  # nobody listens any more, which is no reason to stop
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends

    def _progress(self, state: TrainState, row: dict[str, Any]) -> None:
        if not self.speaks:
            return
        left = (self.plan.total_iters - state.iteration) * self.plan.tokens_per_iter / row["tokens_per_s"]
        line = (
            f"step {state.iteration}/{self.plan.total_iters} | loss {row['loss']:.4f} | "
            f"{row['tokens_per_s']:,.0f} tokens/s | lr {row['lr']:.2e} | norm {row['grad_norm']:.2f} | "
            + (f"ppl {state.perplexity:.4g} | " if state.perplexity else "")
            + (f"MFU {row['mfu']:.1%} | " if row["mfu"] else "")
            + f"ETA {_duration(left)}"
        )
        self._print(f"\r\033[K{line}" if self.live else line + "\n")

    def _utilisation(self, state: TrainState) -> float | None:
        """FLOPs of both roles since the last line, over what the ranks of both could have computed."""
        if self.peak is None:
            return None
        return state.unlogged_flops / state.unlogged_seconds / (self.peak * self.plan.num_ranks)

    def _provenance(self) -> dict[str, Any]:
        return {
            "config": asdict(self.plan.config),
            "shape": asdict(self.plan.shape),
            "layout": asdict(self.plan.layout),
            "total_iters": self.plan.total_iters,
            "removed_layers": list(self.plan.removal.removed) if self.plan.removal else [],
            "load_from": str(self.plan.load_from) if self.plan.load_from else None,
            "resumed_at": self.plan.start,
            "versions": versions(),
            "commit": commit(),
            "host": platform.node(),
            "device": device.name(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _bottleneck(waited: float) -> str:
    """What the share of its time that the student waited says about the ranks of both roles."""
    said = f"the student waited {waited:.1%} of its time for the teacher"
    if waited < _BALANCED:
        return f"{said}: the teacher keeps up, the student is the bottleneck"
    return f"{said}, which is the bottleneck: give the teacher more ranks, or the student fewer"


def _backend(student: Student) -> str:
    layers = student.model.decoder.layers
    return layers[0].attention.backend if len(layers) else "none"


def _wandb(project: str, run: Path, config: dict[str, Any], *, resumes: bool) -> Any:
    """The run of Weights & Biases that belongs to the run folder: one for all starts until the run starts anew."""
    import wandb

    kept = run / "wandb_id"
    if not resumes or not kept.exists():
        write_whole(kept, secrets.token_hex(8) + "\n")
    return wandb.init(project=project, name=run.name, config=config, id=kept.read_text().strip(), resume="allow")


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
