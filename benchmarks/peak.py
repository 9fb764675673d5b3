"""Peak memory of one call, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

OPTION = "--only"
"""Makes a benchmark print the peak of one side and end."""


def peak_above_inputs(call: Callable[[], object]) -> int:
    """Bytes that a call takes at its most above what there was before it: allocated on a GPU, resident on a CPU.

    On a CPU the process must not have had more before; the caller starts one for each side.
    """
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def peak_in_process(side: str, *options: object) -> int:
    """What this very program prints when started again for one side."""
    command = [sys.executable, sys.argv[0], OPTION, side, *map(str, options)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed means returned
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(done.stdout)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
