"""Every family and flavour of model on every kind of layout: saved, loaded, resharded, resumed, read for evaluation.

    python -m tests.checkpoint.contract              one line for each check, and how many failed
    python -m tests.checkpoint.contract one "DP 2"    of these layouts alone

Models come from the registry of families and from tests/support/public_models.py, so a new family takes part by
itself. Every weight and optimizer state has a value that follows from its name. After each operation every rank
compares what it holds, and the first rank what is on disk, with those values bit for bit. All models and layouts of one
number of ranks share one launch, and each checkpoint is loaded by the next layout.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from megatron_distill.config.model import PRESETS, ModelConfig, ModelShape
from tests.support.corpora import write_corpus
from tests.support.public_models import MODELS, public_shape
from tests.support.ranks import launch

if TYPE_CHECKING:
    from torch import Tensor

    from megatron_distill.models.build import Decoder
    from megatron_distill.training.plan import RunPlan
    from megatron_distill.training.student import Student

OPERATIONS = ("reshard", "save", "resume", "evaluate", "teach")
"""In the order in which they run on a layout: load what another layout wrote, with the optimizer; write it again; load
that and train a step; load it as evaluation does, and as a teacher."""


@dataclass(frozen=True)
class Layout:
    """Tensor, pipeline and data parallel sizes of a world."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence_parallel: bool = False

    @property
    def ranks(self) -> int:
        """Of the world."""
        return self.tensor * self.pipeline * self.data

    def flags(self) -> list[str]:
        """Of a run with this layout; what is left of the world is data parallel."""
        sizes = ["--tensor-model-parallel-size", self.tensor, "--pipeline-model-parallel-size", self.pipeline]
        return [*map(str, sizes), *(["--sequence-parallel"] if self.sequence_parallel else [])]


LAYOUTS = {
    "one": Layout(),
    "TP 2": Layout(tensor=2),
    "TP 2 SP": Layout(tensor=2, sequence_parallel=True),
    "PP 2": Layout(pipeline=2),
    "DP 2": Layout(data=2),
    "PP 3": Layout(pipeline=3),
    "PP 4": Layout(pipeline=4),
    "TP 2 DP 2": Layout(tensor=2, data=2),
    "PP 2 DP 2": Layout(pipeline=2, data=2),
    "TP 2 PP 2 DP 2": Layout(tensor=2, pipeline=2, data=2),
}


class Row(NamedTuple):
    """One check."""

    item: str
    layout: str
    operation: str
    ok: bool
    detail: str


def items() -> dict[str, ModelShape]:
    """Every model of the contract: the flavours of our own presets, and one or more of every family."""
    flavours = [name for name in PRESETS if name.startswith("palm-tiny")]
    small = {name: ModelConfig(model=name, vocab_size=75, make_vocab_size_divisible_by=16) for name in flavours}
    return {name: config.shape() for name, config in small.items()} | {name: public_shape(name) for name in MODELS}


def run_contract(layouts: Sequence[str] = tuple(LAYOUTS), models: Sequence[str] | None = None) -> list[Row]:
    """Every operation on these layouts for these models, all of them by default, and a row for every registered family
    that has no model here."""
    from megatron_distill.models.families.registry import all_families, find_exported

    known, rows = items(), []
    covered = {shape.family for shape in known.values()} | {find_exported(shape).name for shape in known.values()}
    rows += [Row(name, "any", "exists", False, "has no model here") for name in all_families() if name not in covered]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "corpus")
        for size in sorted({LAYOUTS[layout].ranks for layout in layouts}):
            where = folder / f"{size}-ranks"
            where.mkdir()
            chosen = [layout for layout in layouts if LAYOUTS[layout].ranks == size]
            arguments = {"corpus": str(corpus), "runs": str(folder), "layouts": chosen}
            taken = list(models or known)
            failure = _launch(size, where, arguments | {"models": taken})
            rows += _complete(where / "rows.jsonl", chosen, taken, failure)
    return rows


def _launch(size: int, where: Path, arguments: dict[str, Any]) -> str:
    """Run the layouts of `size` ranks; returns why that ended early, "" if it did not."""
    import pytest

    try:
        launch(on_ranks, size, 300.0, where, arguments)
    except pytest.fail.Exception as failure:
        return str(failure)
    return ""


def _complete(path: Path, layouts: list[str], models: list[str], failure: str) -> list[Row]:
    """The rows written by the ranks, and a failed one for each that is missing."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {row[:3]: row for row in (Row(*json.loads(line)) for line in lines)}
    wanted = [(item, layout, operation) for layout in layouts for item in models for operation in OPERATIONS]
    return [found.get(key, Row(*key, False, f"not reached: {failure[-2000:]}")) for key in wanted]


def on_ranks(rank: int, tmp_path: Path, corpus: str, runs: str, layouts: list[str], models: list[str]) -> None:
    """On every rank of a launch: its layouts, one world after the other."""
    with (tmp_path / "rows.jsonl").open("a") as file:
        for name in layouts:
            layout = LAYOUTS[name]
            with _world(layout, tmp_path / f"{name}.meet"):
                for item, shape in ((name, items()[name]) for name in models):
                    for row in _check_item(Path(runs) / item, Path(corpus), layout, shape):
                        if rank == 0:
                            file.write(json.dumps([item, name, *row]) + "\n")
                            file.flush()


@contextmanager
def _world(layout: Layout, meeting: Path) -> Iterator[None]:
    """The ranks of this launch as one role; they meet through a file."""
    import torch.distributed as dist

    from megatron_distill.config.run import Layout as Sizes
    from megatron_distill.parallel import worlds

    store = dist.FileStore(str(meeting), layout.ranks) if layout.ranks > 1 else dist.HashStore()
    sizes = Sizes(tensor=layout.tensor, pipeline=layout.pipeline, data=layout.data, num_microbatches=1)
    role = worlds.Role("student", sizes)
    with mock.patch.object(worlds, "_store", return_value=store), worlds.open_world((role,), timeout_minutes=1.0):
        yield


def _check_item(run: Path, corpus: Path, layout: Layout, shape: ModelShape) -> Iterator[tuple[str, bool, str]]:
    """(operation, whether it held, how it failed) of every operation on one model; collective."""
    model = _Item(run, corpus, layout, shape)
    checks: dict[str, Callable[[], None]] = {name: getattr(model, name) for name in OPERATIONS}
    for operation, check in checks.items():
        failures = _everywhere(check)
        yield operation, not failures, failures
        if failures and operation in ("reshard", "save"):
            return  # the rest has nothing to start from


def _everywhere(check: Callable[[], None]) -> str:
    """What went wrong on the first rank where something did, "" if nothing; collective."""
    import torch.distributed as dist

    failure = ""
    try:
        check()
    except Exception as error:  # a row of the table
        failure = f"rank {dist.get_rank()}: {type(error).__name__}: {error}"[:2000]
    failures = [""] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    return next(filter(None, failures), "")


class _Item:
    """One model on one layout. Its run folder has one checkpoint, which each layout replaces by its own."""

    def __init__(self, run: Path, corpus: Path, layout: Layout, shape: ModelShape) -> None:
        self.run, self.layout, self.shape = run, layout, shape
        self.written = run.with_name(f"{run.name}.{os.environ['WORLD_SIZE']}")
        self.corpus = corpus
        self.student: Student | None = None

    def reshard(self) -> None:
        """Load what the layout before wrote; the first layout makes the values."""
        if self.run.exists():
            self.student = self._build(self.run)
        else:
            self.student = self._build(None)
            for tensor, expected in self._expected(self.student):
                tensor.copy_(expected)
        self._compare(self.student)

    def save(self) -> None:
        """Write it; every tensor on disk has its value, under its name."""
        import torch
        import torch.distributed as dist

        from megatron_distill.training.state import TrainState
        from megatron_distill.training.student import save_student

        assert self.student is not None
        state = TrainState(iteration=self._steps() + 1)
        folder = save_student(self.student, state)
        if dist.get_rank() == 0:
            for name, tensor in _on_disk(folder).items():
                assert torch.equal(tensor, value(name, tensor)), f"{name} on disk"
            if self.run.exists():
                shutil.rmtree(self.run)
            self.written.rename(self.run)
        dist.barrier()

    def resume(self) -> None:
        """Load the run's own checkpoint, and train."""
        import math

        from megatron_distill.training.feed import Feed
        from megatron_distill.training.step import train_step

        student = self._build(self.run)
        self._compare(student)
        batches = Feed(student.plan).training_batches(0)
        done = train_step(student, batches, 1e-3, should_stop=False)
        batches.close()
        assert math.isfinite(done.loss) and not done.skipped, done

    def evaluate(self) -> None:
        """Load it as the evaluation and the generation do."""
        from megatron_distill.checkpoint.inference import find_model, inference_layout, load_for_inference

        stored = find_model(self.run)
        sizes = inference_layout(stored, self.layout.ranks, self.layout.tensor, self.layout.pipeline)
        _compare_weights(load_for_inference(stored, sizes))

    def teach(self) -> None:
        """Load it as a teacher, on ranks of its own or in the student's processes."""
        import torch

        from megatron_distill.checkpoint.manifest import find_checkpoint
        from megatron_distill.models.build import BuildOptions
        from megatron_distill.teachers.model import FrozenTeacher

        options = BuildOptions(torch.bfloat16, "sdpa", sequence_parallel=self.layout.sequence_parallel)
        layers, sizes = tuple(range(self.shape.num_layers)), self._plan().layout
        _compare_weights(FrozenTeacher(find_checkpoint(self.run), self.shape, layers, sizes, options).model)

    def _steps(self) -> int:
        from megatron_distill.checkpoint.manifest import find_checkpoint, read_manifest

        return read_manifest(find_checkpoint(self.run)).iteration if self.run.exists() else 0

    def _plan(self) -> RunPlan:
        from tests.support.worlds import plan

        steps = ["--precision", "bf16", "--optimizer", "adamw", "--decay-semantics", "lr", "--micro-batch-size", 1]
        # A fresh run needs stages of equal size, which 12 layers give; the model of this item has four.
        stages = ["--num-layers", 12, *self.layout.flags()]
        small = plan(self.written, self.corpus, "--global-batch-size", 2, *steps, *stages)
        return replace(small, shape=self.shape, initial_layers=tuple(range(self.shape.num_layers)))

    def _build(self, run: Path | None) -> Student:
        from megatron_distill.checkpoint.manifest import find_checkpoint
        from megatron_distill.training.student import build_student

        weights = find_checkpoint(run) if run else None
        return build_student(self._plan(), 0, weights=weights, with_optimizer=run is not None)

    def _expected(self, student: Student) -> Iterator[tuple[Tensor, Tensor]]:
        """Every tensor of weights and optimizer that this rank holds, and what it should hold there."""
        from megatron_distill.optim.sharded_state import _shards

        names = {id(p): student.model.original_name(n) for n, p in student.model.named_parameters()}
        for parameter in student.model.parameters():
            yield parameter.data, own_part(names[id(parameter)], parameter).to(parameter.dtype)
        for parameter, start, end, tensors in _shards(student.optimizer):
            for state, tensor in tensors.items():
                if tensor is not None:
                    whole = own_part(f"optimizer.{state}.{names[id(parameter)]}", parameter)
                    yield tensor.data, whole.reshape(-1)[start:end]

    def _compare(self, student: Student) -> None:
        import torch

        assert student.model.layer_indices
        for number, (tensor, expected) in enumerate(self._expected(student)):
            assert torch.equal(tensor, expected), f"tensor {number} of this rank, {list(tensor.shape)}"


def _compare_weights(model: Decoder) -> None:
    import torch

    for name, parameter in model.named_parameters():
        expected = own_part(model.original_name(name), parameter).to(parameter.dtype)
        assert torch.equal(parameter, expected), name


def value(name: str, like: Tensor) -> Tensor:
    """What a whole tensor of that name and size holds: a weight and its fp32 copy agree, second moments are squares."""
    import torch

    weight = name.removeprefix("optimizer.fp32_param.")
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(zlib.crc32(weight.encode()))) * 0.05
    if name.startswith("optimizer.exp_avg_sq."):
        drawn = drawn.square()
    if "norm" in name and not name.startswith("optimizer.exp"):
        drawn += 1
    return drawn.to(like.dtype)


def own_part(name: str, parameter: Any) -> Tensor:
    """The part of a whole tensor that belongs to this tensor-parallel rank, in fp32."""
    import torch
    from megatron.core import parallel_state

    size = list(parameter.shape)
    group = parallel_state.get_tensor_model_parallel_group()
    if not getattr(parameter, "tensor_model_parallel", False):
        return value(name, torch.empty(size))
    size[parameter.partition_dim] *= group.size()
    return value(name, torch.empty(size)).chunk(group.size(), dim=parameter.partition_dim)[group.rank()]


def _on_disk(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole."""
    from torch.distributed.checkpoint import FileSystemReader

    from megatron_distill.checkpoint.storage import TensorReader

    described = FileSystemReader(folder).read_metadata().state_dict_metadata
    reader = TensorReader(folder)
    return {name: reader.read(name, tuple(entry.size)) for name, entry in described.items()}


if __name__ == "__main__":
    table = run_contract(sys.argv[1:] or tuple(LAYOUTS))
    for row in table:
        print(f"{'ok    ' if row.ok else 'FAILED'} {row.item:22} {row.layout:16} {row.operation:9} {row.detail}")
    print(f"{sum(not row.ok for row in table)} of {len(table)} failed")
