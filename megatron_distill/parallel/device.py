"""CUDA with NCCL where there is a GPU, the CPU with gloo otherwise: the only file that knows which.

megatron-core 0.16 names CUDA in many places. On a machine without a GPU, `prepare` makes those names mean the CPU, so
that tensor, pipeline, sequence and data parallelism and the distributed optimizer run unmodified.
"""

from __future__ import annotations

import functools
import os
import platform
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megatron_distill.config.error import ConfigError

_PEAK_BF16_TFLOPS = {"A100": 312.0, "A800": 312.0, "H100": 989.0, "H200": 989.0, "H800": 989.0, "B200": 2250.0}
# Dense bf16 figures of the vendors' data sheets, for model FLOPs utilisation.


def is_cuda() -> bool:
    """Whether this process computes on a GPU."""
    return torch.cuda.is_available()


def backend() -> str:
    """The torch.distributed backend that goes with the device."""
    return "nccl" if is_cuda() else "gloo"


def current() -> torch.device:
    """The device this rank computes on."""
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda() else torch.device("cpu")


def name() -> str:
    """What the device calls itself."""
    if is_cuda():
        return str(torch.cuda.get_device_name())
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in cpu_flags()), platform.machine()) + " CPU"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU, as Linux names them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return frozenset()
    line = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def has_bf16() -> bool:
    """Whether bf16 matrix products run in hardware: Ampere and later, or a CPU with AMX or AVX512-BF16."""
    if is_cuda():
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


def dtype(precision: str) -> torch.dtype:
    """The dtype of weights and activations that `--precision` asks for."""
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def peak_flops() -> float | None:
    """Peak bf16 FLOP/s of the device, if it is a known one."""
    if not is_cuda():
        return None
    found = (tflops for key, tflops in _PEAK_BF16_TFLOPS.items() if key in torch.cuda.get_device_name())
    return next((tflops * 1e12 for tflops in found), None)


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the GPU if there is one, else resident."""
    if is_cuda():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def release_memory() -> None:
    """Give memory of dropped tensors back to the device or the system, and start `peak_memory_bytes` anew."""
    import gc

    gc.collect()
    if is_cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif platform.system() == "Linux":
        import contextlib
        import ctypes

        # glibc keeps freed pages unless it is asked; musl has no malloc_trim.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def prepare(local_rank: int) -> None:
    """Choose this rank's GPU, or make megatron-core run on the CPU. Once a process, before groups are made."""
    # Tensor parallelism needs one queue so that communication overlaps computation in issue order.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if is_cuda():
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"this node has {torch.cuda.device_count()} GPUs, but local rank {local_rank} was started; "
                "lower torchrun's --nproc-per-node"
            )
        torch.cuda.set_device(local_rank)
    elif not isinstance(torch.cuda.current_device, functools.partial):
        _make_cuda_mean_cpu()


def _make_cuda_mean_cpu() -> None:
    from megatron.core import utils
    from megatron.core.dist_checkpointing import exchange_utils
    from megatron.core.dist_checkpointing.strategies import async_utils, state_dict_saver
    from megatron.core.optimizer import clip_grads, grad_scaler, optimizer
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.tensor_parallel import data
    from megatron.core.tensor_parallel import random as tp_random

    cpu = torch.device("cpu")
    torch.cuda.current_device = functools.partial(_same, cpu)
    torch.cuda.synchronize = functools.partial(_same, None)
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    torch.cuda.get_rng_state = lambda device=None: torch.get_rng_state()
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign,assignment]
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign,assignment]
    torch.Tensor.type = _cuda_type_name(torch.Tensor.type)  # type: ignore[method-assign,assignment]
    tp_random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    tp_random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    for module in (
        utils,
        exchange_utils,
        async_utils,
        state_dict_saver,
        clip_grads,
        grad_scaler,
        optimizer,
        schedules,
        data,
    ):
        module.torch = _TorchOnCpu(torch)


def _same(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


def _cuda_type_name(original: Callable[..., Any]) -> Callable[..., Any]:
    """megatron-core compares `tensor.type()` with "torch.cuda.FloatTensor" and the like."""

    def type_of(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        return found if args or kwargs else found.replace("torch.", "torch.cuda.", 1)

    return type_of


class _TorchOnCpu(types.ModuleType):
    """torch as one module of megatron-core sees it: what it makes on "cuda" it gets on the CPU.

    A stand-in for the few modules that write the device as a string costs nothing anywhere else, where a
    TorchFunctionMode would slow down every call of torch.
    """

    def __init__(self, original: types.ModuleType) -> None:
        super().__init__(original.__name__)
        self.__dict__.update(original.__dict__)
        for factory in ("tensor", "zeros", "ones", "empty", "full", "zeros_like", "empty_like", "arange"):
            setattr(self, factory, _on_cpu(getattr(original, factory)))


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        if "device" in kwargs and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = "cpu"
        return factory(*args, **kwargs)

    return make
