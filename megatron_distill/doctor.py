"""What a machine has, and what a run on it will therefore use."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def report() -> str:
    """Two columns: what was looked for, what was found and follows from it."""
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    rows = [*_machine(), *_packages(), *_choices()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _machine() -> list[tuple[str, str]]:
    import torch

    from megatron_distill.parallel import device

    flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in device.cpu_flags()]
    rows = [
        ("python", platform.python_version()),
        ("CPU", f"{os.cpu_count()} cores, {', '.join(flags) or 'no vector extensions known'}"),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"),
    ]
    if not torch.cuda.is_available():
        return [*rows, ("GPUs", "none: training runs on the CPU over gloo")]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        rows.append((f"GPU {i}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor}"))
    return rows


def _packages() -> list[tuple[str, str]]:
    uses = {
        "megatron-core": ("megatron", "parallel layers, schedules, distributed optimizer, checkpoints"),
        "transformer-engine": ("transformer_engine", "attention (--attention-backend te)"),
        "flash-attn": ("flash_attn", "attention (--attention-backend flash, the choice of auto)"),
        "apex": ("apex", "fused gradient clipping inside megatron-core"),
        "tokenizers": ("tokenizers", "byte-level BPE"),
        "sentencepiece": ("sentencepiece", "SentencePiece models"),
        "transformers": ("transformers", "Hugging Face export"),
        "wandb": ("wandb", "--wandb-project"),
    }
    rows = []
    for name, (module, use) in uses.items():
        try:
            rows.append((name, f"{version(name)}: {use}"))
        except PackageNotFoundError:
            here = importlib.util.find_spec(module) is not None
            rows.append((name, f"present: {use}" if here else "not installed"))
    return rows


def _choices() -> list[tuple[str, str]]:
    import torch

    from megatron_distill.models.attention import choose_backend
    from megatron_distill.parallel import device

    package = Path(__file__).parent
    compiled = any(package.glob("_csrc*.so"))
    cuda = (package / "_cuda.so").exists()
    dtype = str(device.dtype("auto")).removeprefix("torch.")
    needed = "" if torch.cuda.is_available() else " (no GPU here to use it)"
    return [
        ("C++ data engine", "compiled" if compiled else "MISSING: run pip install -e . with a C++17 compiler"),
        ("CUDA kernels", f"compiled{needed}" if cuda else f"not compiled; nvcc {shutil.which('nvcc') or 'not found'}"),
        ("--> precision", f"{dtype} (--precision auto)"),
        ("--> communication", device.backend()),
        ("--> attention", f"{choose_backend('auto')} (--attention-backend auto)"),
    ]
