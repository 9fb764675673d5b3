"""What a run tells: a progress line, metrics.jsonl, TensorBoard, Weights & Biases, and result.json at the end."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from megatron_distill import __version__
from megatron_distill.config.flags import to_flags
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import World

from .plan import RunPlan
from .state import StepResult, TrainState
from .student import Student


class Metrics:
    """The voice of a run; only the first rank speaks and writes, every rank may call."""

    def __init__(self, plan: RunPlan, world: World, state: TrainState) -> None:
        self.plan, self.speaks = plan, world.is_first
        self.run = Path(plan.config.checkpoint.save)
        self.ranks = plan.layout.world_size
        self.peak = device.peak_flops()
        self.window: list[tuple[float, float, int]] = []  # seconds, loss sum, tokens of steps since the last line
        self.seconds_before = state.seconds
        self.lines: TextIO | None = None
        self.board: Any = None
        self.wandb: Any = None
        self.live = sys.stdout.isatty()

    def __enter__(self) -> Metrics:
        if not self.speaks:
            return self
        from torch.utils.tensorboard import SummaryWriter

        self.run.mkdir(parents=True, exist_ok=True)
        _cut_after(self.run / "metrics.jsonl", self.plan.start)
        self.lines = (self.run / "metrics.jsonl").open("a")
        # TensorBoard purges this step too, so the first one to come; of a run that starts anew, everything.
        purge = self.plan.start + 1 if self.plan.start else 0
        self.board = SummaryWriter(str(self.run / "tensorboard"), purge_step=purge)
        project = self.plan.config.logging.wandb_project
        if project:
            self.wandb = _wandb(project, self.run.name, asdict(self.plan.config))
        (self.run / "flags.txt").write_text("\n".join(to_flags(self.plan.config)) + "\n")
        (self.run / "run.json").write_text(json.dumps(self._provenance(), indent=1))
        return self

    def __exit__(self, *exc: object) -> None:
        if self.lines:
            self.lines.close()
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()

    def say(self, text: str) -> None:
        """One line for a person."""
        if self.speaks:
            print(("\r\033[K" if self.live else "") + text, flush=True)

    def start(self, student: Student) -> None:
        """Where the run begins."""
        plan = self.plan
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

    def step(self, state: TrainState, result: StepResult, lr: float) -> None:
        """After every optimizer step; writes a line every --log-interval steps."""
        if not self.speaks:
            return
        seconds, self.seconds_before = state.seconds - self.seconds_before, state.seconds
        self.window.append((seconds, result.loss * result.num_tokens, result.num_tokens))
        if result.skipped:
            self.say(f"step {state.iteration}: gradient norm {result.grad_norm}, loss {result.loss}; nothing updated")
        if state.iteration % self.plan.config.logging.log_interval and state.iteration != self.plan.total_iters:
            return
        elapsed, loss_sum, tokens = (sum(column) for column in zip(*self.window, strict=True))
        rate, loss = self.plan.tokens_per_iter * len(self.window) / elapsed, loss_sum / max(tokens, 1)
        self.window.clear()
        row = {
            "loss": loss,
            "lr": lr,
            "grad_norm": result.grad_norm,
            "tokens_per_s": rate,
            "mfu": self._utilisation(rate, state),
            "skipped_steps": state.skipped_steps,
        }
        self._write("train", state, row)
        self._progress(state, row)

    def validation(self, state: TrainState, loss: float) -> None:
        """After a validation."""
        self._write("valid", state, {"loss": loss, "perplexity": state.perplexity})
        self.say(f"step {state.iteration}: validation perplexity {state.perplexity:.4g} (loss {loss:.4f})")

    def saved(self, folder: Path) -> None:
        """After a checkpoint."""
        if self.board:
            self.board.flush()  # what a crash from here on must not take along
        self.say(f"saved {folder}")

    def removed(self, state: TrainState, gone: list[int], kept: tuple[int, ...]) -> None:
        """After layers left."""
        parameters = self.plan.shape.num_parameters(len(kept))
        self._write("removal", state, {"removed": gone, "layers": list(kept), "parameters": parameters})
        names = ", ".join(map(str, gone))
        self.say(f"step {state.iteration}: layers {names} removed, {len(kept)} stay, {parameters:,} parameters")

    def result(self, state: TrainState) -> None:
        """At the end of a finished run: `result.json`."""
        if not self.speaks:
            return
        parameters = self.plan.shape.num_parameters(len(self.plan.layers_at(state.iteration)))
        values = {
            "parameters": parameters,
            "layers": list(self.plan.layers_at(state.iteration)),
            "tokens": state.consumed_tokens,
            "flops": state.flops,
            "paper_flops": 6.0 * parameters * state.paper_tokens,
            "perplexity": state.perplexity,
            "initial_perplexity": state.initial_perplexity,
            "iterations": state.iteration,
            "seconds": state.seconds,
            "tokens_per_s": state.consumed_tokens / max(state.seconds, 1e-9),
            "skipped_steps": state.skipped_steps,
            "peak_memory_bytes": device.peak_memory_bytes(),
        }
        partial = self.run / "result.json.partial"
        partial.write_text(json.dumps(values, indent=1))
        partial.rename(self.run / "result.json")

    def _write(self, kind: str, state: TrainState, values: dict[str, Any]) -> None:
        if self.lines is None:
            return
        row = {"kind": kind, "iteration": state.iteration, "consumed_tokens": state.consumed_tokens}
        row |= {"flops": state.flops, "time": time.time(), **values}
        self.lines.write(json.dumps({k: _plain(v) for k, v in row.items()}) + "\n")
        self.lines.flush()
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        for name, value in numbers.items():
            self.board.add_scalar(name, value, state.iteration)
        if self.wandb:
            self.wandb.log(numbers, step=state.iteration)

    def _progress(self, state: TrainState, row: dict[str, Any]) -> None:
        left = (self.plan.total_iters - state.iteration) * self.plan.tokens_per_iter / row["tokens_per_s"]
        line = (
            f"step {state.iteration}/{self.plan.total_iters} | loss {row['loss']:.4f} | "
            f"{row['tokens_per_s']:,.0f} tokens/s | lr {row['lr']:.2e} | norm {row['grad_norm']:.2f} | "
            + (f"ppl {state.perplexity:.4g} | " if state.perplexity else "")
            + (f"MFU {row['mfu']:.1%} | " if row["mfu"] else "")
            + f"ETA {_duration(left)}"
        )
        print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n", flush=True)

    def _utilisation(self, tokens_per_s: float, state: TrainState) -> float | None:
        if self.peak is None:
            return None
        layers = len(self.plan.layers_at(state.iteration - 1))
        per_token = self.plan.shape.flops_per_token(self.plan.config.data.seq_length, layers)
        return tokens_per_s * per_token / (self.peak * self.ranks)

    def _provenance(self) -> dict[str, Any]:
        return {
            "config": asdict(self.plan.config),
            "shape": asdict(self.plan.shape),
            "layout": asdict(self.plan.layout),
            "total_iters": self.plan.total_iters,
            "removed_layers": list(self.plan.removal.removed) if self.plan.removal else [],
            "load_from": str(self.plan.load_from) if self.plan.load_from else None,
            "resumed_at": self.plan.start,
            "versions": {"megatron_distill": __version__, "python": platform.python_version()} | _versions(),
            "commit": _commit(),
            "host": platform.node(),
            "device": device.name(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _backend(student: Student) -> str:
    layers = student.model.decoder.layers
    return layers[0].attention.backend if len(layers) else "none"


def _cut_after(path: Path, iteration: int) -> None:
    """Drop lines of steps that a crash made the run forget, and a line it cut in two.

    A checkpoint at a removal is from before it: the removal happens again, and what was said since then as well.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        again = row["kind"] == "removal" and row["iteration"] == iteration
        if not iteration or row["iteration"] > iteration or again:
            break
        kept.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept))
    partial.rename(path)


def _wandb(project: str, name: str, config: dict[str, Any]) -> Any:
    import wandb

    return wandb.init(project=project, name=name, config=config)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "megatron-core", "numpy", "transformers", "transformer-engine", "flash-attn", "apex"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, env=os.environ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
