"""The CUDA expansion of packed tokens against slicing."""

from __future__ import annotations

import pytest
import torch

from megatron_distill.data.device_expand import available, expand

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not available(), reason="needs a GPU and the CUDA library")]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32])
# One thread, less and more than one block of 256 threads, and more elements than the largest grid has threads.
@pytest.mark.parametrize(("rows", "seq"), [(1, 1), (3, 85), (4, 2048), (600, 2047)])
def test_it_equals_slicing(dtype: torch.dtype, rows: int, seq: int) -> None:
    wide = torch.randint(0, 65536, (rows, seq + 1), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    batch = expand(wide.to(dtype))
    assert batch.tokens.equal(wide[:, :-1])
    assert batch.labels.equal(wide[:, 1:])
    assert batch.loss_mask.equal(torch.ones(rows, seq, device="cuda"))
    assert batch.position_ids.equal(torch.arange(seq, device="cuda").expand(rows, -1))


def test_it_takes_its_turn_on_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    block = torch.zeros(64, 4097, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # so that a kernel on another stream would read zeros
        block.fill_(7)
        batch = expand(block)
    stream.synchronize()
    assert bool((batch.tokens == 7).all())


def test_no_rows_give_an_empty_batch() -> None:
    assert expand(torch.zeros(0, 9, dtype=torch.int32, device="cuda")).tokens.shape == (0, 8)


def test_a_view_that_is_not_contiguous_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        expand(torch.zeros(9, 4, dtype=torch.int32, device="cuda").t())
