"""The CUDA library where there is no GPU; tests/gpu has the rest."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from megatron_distill.data import device_expand

SOURCE = Path(__file__).parents[2] / "csrc" / "expand_tokens.cu"
NOWHERE = [None] * 5
"""The four outputs and the stream, which nothing may touch."""


@pytest.fixture
def library() -> ctypes.CDLL:
    if not device_expand.LIBRARY.exists():
        pytest.skip("the CUDA library was not built")
    return ctypes.CDLL(str(device_expand.LIBRARY))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_where_nvcc_is_the_build_leaves_a_library_for_both_generations() -> None:
    built = device_expand.LIBRARY.read_bytes()
    assert b"sm_80" in built and b"sm_90" in built and b"compute_90" in built


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_kernel_compiles_as_it_is_now(architecture: str, tmp_path: Path) -> None:
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-Werror", "all-warnings", str(SOURCE)]
    done = subprocess.run([*command, "-o", str(tmp_path / "kernel.cubin")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernel.cubin").stat().st_size > 0


def test_the_library_loads_without_a_driver_and_knows_its_token_sizes(library: ctypes.CDLL) -> None:
    size = ctypes.c_int64
    kernel = library.megatron_distill_expand_tokens
    assert kernel(None, 2, size(0), size(8), *NOWHERE) == 0  # no rows: nothing is launched
    assert kernel(None, 3, size(0), size(8), *NOWHERE) == -1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the absence of a GPU")
def test_a_launch_without_a_gpu_is_an_error_code(library: ctypes.CDLL) -> None:
    size = ctypes.c_int64
    assert library.megatron_distill_expand_tokens(None, 2, size(1), size(8), *NOWHERE) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the absence of a GPU")
def test_it_is_not_available_without_a_gpu() -> None:
    assert not device_expand.available()


@pytest.mark.parametrize(
    "block",
    [
        torch.zeros(2, 9, dtype=torch.int64),
        torch.zeros(9, dtype=torch.int32),
        torch.zeros(2, 1, dtype=torch.int32),
        torch.zeros(2, 9, dtype=torch.uint16),  # not on a GPU
    ],
    ids=["dtype", "rank", "no label", "device"],
)
def test_a_block_it_cannot_read_is_refused_before_the_kernel_sees_it(block: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a block is"):
        device_expand.expand(block)
