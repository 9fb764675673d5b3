"""What the device is, and how megatron-core comes to run without a GPU."""

from __future__ import annotations

import functools
import platform
import types

import pytest
import torch

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel import device
from tests.support.ranks import ranks
from tests.support.worlds import student_world

FACTORIES = ("tensor", "zeros", "ones", "empty", "full", "zeros_like", "empty_like", "arange")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "is_cuda", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if this machine had two H100; the list of what was chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(device, "is_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return chosen


def test_the_cpu_talks_over_gloo(cpu: None) -> None:
    assert device.backend() == "gloo"
    assert device.current() == torch.device("cpu")
    assert device.peak_flops() is None
    assert device.name().endswith(" CPU")


def test_a_gpu_talks_over_nccl(two_gpus: list[int]) -> None:
    assert device.backend() == "nccl"
    assert device.name() == "NVIDIA H100 80GB HBM3"
    assert device.peak_flops() == 989e12
    assert device.dtype("auto") is torch.bfloat16


def test_an_unknown_gpu_has_no_known_peak(two_gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Something 9000")
    assert device.peak_flops() is None


def test_each_local_rank_takes_its_gpu(two_gpus: list[int]) -> None:
    device.prepare(1)
    assert two_gpus == [1]
    with pytest.raises(ConfigError, match="2 GPUs, but local rank 2 was started; lower .*--nproc-per-node"):
        device.prepare(2)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [({"avx2"}, torch.float32), ({"amx_bf16", "avx2"}, torch.bfloat16), ({"avx512_bf16"}, torch.bfloat16)],
)
def test_auto_precision_is_what_the_cpu_has_in_hardware(
    flags: set[str], wanted: torch.dtype, cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert device.dtype("auto") is wanted
    assert (device.dtype("fp32"), device.dtype("bf16")) == (torch.float32, torch.bfloat16)


def test_old_gpus_have_no_bf16(two_gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    assert device.dtype("auto") is torch.float32


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.system() != "Linux", reason="names of x86 on Linux")
def test_cpu_flags_are_those_of_linux() -> None:
    assert "sse2" in device.cpu_flags()
    assert not {"", ":", "flags"} & device.cpu_flags()


def test_peak_memory_grows_with_what_is_held(cpu: None) -> None:
    device.release_memory()
    before = device.peak_memory_bytes()
    held = torch.ones(64 << 20, dtype=torch.uint8)
    grown = device.peak_memory_bytes() - before
    assert len(held) // 2 < grown < len(held) * 2


@ranks(1)
def test_stand_ins_leave_torch_alone(rank: int) -> None:
    before = {name: getattr(torch, name) for name in FACTORIES}
    with student_world():
        for name, factory in before.items():
            assert getattr(torch, name) is factory, name
        assert torch.zeros(1, device="meta").is_meta
        if not torch.cuda.is_available():
            with pytest.raises((AssertionError, RuntimeError)):
                torch.zeros(1, device="cuda")  # only megatron-core may mean the CPU by it


@ranks(1)
def test_megatron_core_makes_on_the_cpu_what_it_wants_on_cuda(rank: int) -> None:
    if torch.cuda.is_available():
        return
    with student_world():
        from megatron.core.optimizer import clip_grads
        from megatron.core.pipeline_parallel import schedules

        for module in (clip_grads, schedules):
            assert isinstance(module.torch, types.ModuleType) and module.torch is not torch
            assert module.torch.zeros(2, device="cuda").device.type == "cpu"
            assert module.torch.tensor([1.0], dtype=torch.float64, device="cuda:0").dtype == torch.float64
            assert module.torch.empty(1, device="meta").is_meta
            assert module.torch.nn is torch.nn and module.torch.Tensor is torch.Tensor
        assert torch.cuda.current_device() == torch.device("cpu")
        tensor = torch.ones(2)
        assert tensor.cuda() is tensor
        assert tensor.type() == "torch.cuda.FloatTensor"
        assert tensor.type(torch.int64).dtype == torch.int64


@ranks(1)
def test_preparing_twice_changes_nothing_more(rank: int) -> None:
    if torch.cuda.is_available():
        return
    device.prepare(0)
    once = torch.cuda.current_device, torch.Tensor.type, torch.Tensor.cuda
    device.prepare(0)
    assert isinstance(once[0], functools.partial)
    assert once == (torch.cuda.current_device, torch.Tensor.type, torch.Tensor.cuda)
    assert torch.ones(1).type() == "torch.cuda.FloatTensor"
