"""The same model, loss and gradients on every layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from megatron_distill.config.model import ModelConfig, ModelShape
from tests.support.public_models import public_shape
from tests.support.worlds import student_world

LAYOUTS = {  # name: (ranks, tp, pp, sequence parallel)
    "tp2": (2, 2, 1, False),
    "tp2-sp": (2, 2, 1, True),
    "tp4": (4, 4, 1, False),
    "tp4-sp": (4, 4, 1, True),
    "pp2": (2, 1, 2, False),
    "tp2-pp2-sp": (4, 2, 2, True),
}


FLAVOURS = ["palm-tiny", "palm-tiny-paper"]
FAMILIES = ["llama-biases", "qwen3", "gpt2", "opt", "gpt_neox"]
"""Between them: grouped queries, tied and untied tables, biases, both norms, QK-norm, both kinds of positions, padding
of the vocabulary, both kinds of residual."""
FEW_LAYOUTS = ["tp2", "tp2-sp", "pp2"]


def shape_of(flavour: str) -> ModelShape:
    """Of one of the papers' models, or of a public one."""
    return ModelConfig(model=flavour, vocab_size=200).shape() if flavour in FLAVOURS else public_shape(flavour)


def loss_and_gradients(flavour: str, tp: int, pp: int, sp: bool) -> dict[str, torch.Tensor]:
    """Loss and every gradient, whole, under the names of the whole model; on the ranks that hold them."""
    from megatron.core import parallel_state
    from megatron.core.distributed import finalize_model_grads
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megatron_distill.config.run import Layout
    from megatron_distill.config.sections import ParallelConfig
    from megatron_distill.models.build import BuildOptions, build_decoder, initialise
    from megatron_distill.optim.build import wrap_ddp
    from megatron_distill.parallel.worlds import job_size

    shape = shape_of(flavour)
    layout = Layout(tensor=tp, pipeline=pp, data=job_size() // (tp * pp), num_microbatches=2)
    options = BuildOptions(dtype=torch.float32, attention_backend="sdpa", sequence_parallel=sp)
    model = build_decoder(shape, tuple(range(shape.num_layers)), layout, options)
    initialise(model, seed=5)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # away from 1 and 0, where errors would hide
            whole = list(parameter.shape)
            if getattr(parameter, "tensor_model_parallel", False):
                whole[0] *= tp
            noise = torch.randn(whole, generator=torch.Generator().manual_seed(len(name))) * 0.1
            if getattr(parameter, "tensor_model_parallel", False):
                noise = noise.chunk(tp)[parallel_state.get_tensor_model_parallel_rank()]
            parameter.data += noise
    ddp = wrap_ddp(model, ParallelConfig())
    assert model.config.finalize_model_grads_func is finalize_model_grads
    ids = torch.randint(0, shape.vocab_size, (2, 2, 17), generator=generator)
    batches = iter(ids)

    def forward(data, wrapped):  # type: ignore[no-untyped-def]
        block = next(data)
        positions = torch.arange(16).expand(2, -1)
        out = wrapped(block[:, :-1], positions, None, labels=block[:, 1:])
        return out, lambda losses: (losses.sum(), torch.tensor(losses.numel(), dtype=torch.int), losses.sum().detach())

    reports = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=batches,
        model=[ddp],
        num_microbatches=2,
        seq_length=16,
        micro_batch_size=2,
        forward_only=False,
    )
    found = {"loss": torch.stack(reports).sum()} if reports else {}
    for name, parameter in model.named_parameters():
        gradient = parameter.main_grad
        if getattr(parameter, "tensor_model_parallel", False) and tp > 1:
            parts = [torch.empty_like(gradient) for _ in range(tp)]
            torch.distributed.all_gather(parts, gradient, group=parallel_state.get_tensor_model_parallel_group())
            gradient = torch.cat(parts, dim=parameter.partition_dim)
        found[model.original_name(name)] = gradient.clone()
    return found


def write(folder: Path, rank: int, flavour: str, tp: int, pp: int, sp: bool) -> None:
    with student_world(tp=tp, pp=pp):
        torch.save(loss_and_gradients(flavour, tp, pp, sp), folder / f"{rank}.pt")


def on_ranks(size: int, folder: Path, flavour: str, tp: int, pp: int, sp: bool) -> dict[str, torch.Tensor]:
    """Run a layout on real processes; everything its ranks found, the last one's copy of what several hold."""
    from tests.support.ranks import launch

    folder.mkdir()
    launch(write_for, size, 90.0, folder, {"flavour": flavour, "tp": tp, "pp": pp, "sp": sp})
    found: dict[str, torch.Tensor] = {}
    for rank in range(size):
        found |= torch.load(folder / f"{rank}.pt")
    return found


def write_for(rank: int, tmp_path: Path, flavour: str, tp: int, pp: int, sp: bool) -> None:
    write(tmp_path, rank, flavour, tp, pp, sp)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Every model on one rank."""
    folder = tmp_path_factory.mktemp("alone")
    return {f: on_ranks(1, folder / f, f, 1, 1, False) for f in (*FLAVOURS, *FAMILIES)}


@pytest.mark.parametrize(
    ("layout", "flavour"),
    [(layout, f) for layout in LAYOUTS for f in FLAVOURS] + [(layout, f) for layout in FEW_LAYOUTS for f in FAMILIES],
)
def test_loss_and_gradients_equal_those_of_one_rank(
    layout: str, flavour: str, alone: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    size, tp, pp, sp = LAYOUTS[layout]
    found, wanted = on_ranks(size, tmp_path / "ranks", flavour, tp, pp, sp), alone[flavour]
    assert found.keys() == wanted.keys(), json.dumps(sorted(found.keys() ^ wanted.keys()))
    for name, expected in wanted.items():
        error = (found[name] - expected).norm() / expected.norm()
        assert error < 1e-5, f"{name}: {error:.2g}"
