"""A checkpoint of any layout loads on any other: every tensor of model and optimizer is the same to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.cluster import forked
from tests.support.ranks import launch
from tests.support.runs import MODEL, SMALL, trace
from tests.support.worlds import student

OPTIMIZERS = {"lion": ["--optimizer", "lion"], "adamw": ["--optimizer", "adamw", "--decay-semantics", "lr"]}
LAYOUTS = {
    "alone": (1, []),
    "tensor": (2, ["--tensor-model-parallel-size", 2, "--sequence-parallel"]),
    "pipeline": (2, ["--pipeline-model-parallel-size", 2]),
    "data": (2, []),
}


def write(rank: int, folder: str, corpus: Path, options: list[object]) -> None:
    """Train a little and save."""
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import save_student
    from tests.training.test_student import train

    with student(Path(folder), corpus, "--num-layers", 4, *options) as trained:
        state = TrainState()
        train(trained, state, 3)
        save_student(trained, state)


def read_and_write(rank: int, source: str, folder: str, corpus: Path, options: list[object]) -> None:
    """Load and save again."""
    from megatron_distill.checkpoint.manifest import find_checkpoint
    from megatron_distill.training.state import TrainState
    from megatron_distill.training.student import build_student, save_student

    with student(Path(folder), corpus, "--num-layers", 4, *options) as fresh:
        loaded = build_student(fresh.plan, 3, weights=find_checkpoint(Path(source)), with_optimizer=True)
        save_student(loaded, TrainState(iteration=3))


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's checkpoint, whole."""
    from torch.distributed.checkpoint import FileSystemReader

    from megatron_distill.checkpoint.manifest import find_checkpoint
    from megatron_distill.checkpoint.storage import TensorReader

    folder = find_checkpoint(run)
    described = FileSystemReader(folder).read_metadata().state_dict_metadata
    reader = TensorReader(folder)
    return {name: reader.read(name, tuple(entry.size)) for name, entry in described.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("writer", "reader"), [("tensor", "pipeline"), ("pipeline", "data"), ("data", "tensor"), ("tensor", "alone")]
)
def test_every_tensor_survives(writer: str, reader: str, optimizer: str, corpus: Path, tmp_path: Path) -> None:
    options = [*OPTIMIZERS[optimizer], "--precision", "bf16"]
    before, after = tmp_path / "before", tmp_path / "after"
    size, layout = LAYOUTS[writer]
    launch(write, size, 90.0, tmp_path, {"folder": str(before), "corpus": corpus, "options": [*options, *layout]})
    (tmp_path / "rendezvous").unlink(missing_ok=True)
    size, layout = LAYOUTS[reader]
    arguments = {"source": str(before), "folder": str(after), "corpus": corpus, "options": [*options, *layout]}
    launch(read_and_write, size, 90.0, tmp_path, arguments)
    wanted, found = tensors(before), tensors(after)
    states = {name.split(".")[1] for name in wanted if name.startswith("optimizer.")}
    assert states == {"fp32_param", "exp_avg"} | ({"exp_avg_sq"} if optimizer == "adamw" else set())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert any(name.startswith("optimizer.exp_avg.") and tensor.any() for name, tensor in wanted.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_before_and_after_layers_left_the_losses_agree(optimizer: str, corpus: Path, tmp_path: Path) -> None:
    """Started on one layout, stopped before the removal, gone on with another until after it, and on with a third."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    common = [
        *(*MODEL, *SMALL, "--data-path", corpus, "--train-iters", 9, "--num-layers", 4, "--lr", "1e-4"),
        *("--pruning-layout", "1,2", "--pruning-seed-tokens", 4 * 128, *OPTIMIZERS[optimizer]),
    ]
    assert forked(*common, "--save", whole)[0] == [0]
    for stop, name in ((3, "tensor"), (6, "pipeline"), (9, "data")):
        size, layout = LAYOUTS[name]
        codes, said = forked(*common, "--save", run, *layout, "--exit-interval", stop, ranks=size)
        assert codes == [0] * size, said
    found, wanted = trace(run), trace(whole)
    assert [row[0] for row in found] == [row[0] for row in wanted] == list(range(1, 10))
    assert [row[1] for row in found] == pytest.approx([row[1] for row in wanted], rel=1e-5)
