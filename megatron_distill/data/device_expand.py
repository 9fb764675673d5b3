"""Packed tokens on a GPU to what a language model reads, by csrc/expand_tokens.cu: two or four bytes a token travel."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from megatron_distill.batch import Batch

LIBRARY = Path(__file__).parents[1] / "_cuda.so"
"""Built by setup.py where nvcc is."""


def available() -> bool:
    """Whether `expand` works here: the library was built, and there is a GPU."""
    return LIBRARY.exists() and torch.cuda.is_available()


def expand(block: Tensor) -> Batch:
    """The batch of a contiguous `block` [micro-batch, seq + 1] of uint16 or int32 on a CUDA device, on its stream.

    Raises:
        ValueError: another shape, dtype or device.
    """
    if block.dtype not in (torch.uint16, torch.int32) or block.dim() != 2 or block.shape[1] < 2:
        raise ValueError(f"a block is uint16 or int32 [rows, seq + 1], not {block.dtype} {list(block.shape)}")
    if not block.is_cuda or not block.is_contiguous():
        raise ValueError(
            f"a block is contiguous and on a CUDA device, not {block.device} with strides {block.stride()}"
        )
    rows, seq = block.shape[0], block.shape[1] - 1
    tokens, labels, positions = (torch.empty(rows, seq, dtype=torch.int64, device=block.device) for _ in range(3))
    loss_mask = torch.empty(rows, seq, device=block.device)
    with torch.cuda.device(block.device):
        stream = torch.cuda.current_stream().cuda_stream
        outputs = [x.data_ptr() for x in (tokens, labels, loss_mask, positions)]
        code = _kernel()(block.data_ptr(), block.element_size(), rows, seq, *outputs, stream)
    if code != 0:
        raise RuntimeError(f"megatron_distill_expand_tokens failed with CUDA error {code} on {block.device}")
    return Batch(tokens=tokens, labels=labels, loss_mask=loss_mask, position_ids=positions)


@functools.cache
def _kernel() -> ctypes._NamedFuncPointer:
    kernel = ctypes.CDLL(str(LIBRARY)).megatron_distill_expand_tokens
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    kernel.argtypes = [pointer, ctypes.c_int, size, size, pointer, pointer, pointer, pointer, pointer]
    kernel.restype = ctypes.c_int
    return kernel
