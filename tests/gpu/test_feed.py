"""What reaches the GPU: two or four bytes a token, and the batches a CPU would have assembled."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from megatron.core import parallel_state

from megatron_distill.data.device_expand import available
from megatron_distill.training.feed import Feed
from tests.support.corpora import write_corpus
from tests.support.worlds import plan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not available(), reason="needs a GPU and the CUDA library")]


@pytest.mark.parametrize("vocab", [60, 70_000])
@pytest.mark.parametrize("flags", [[], ["--reset-position-ids", "--eod-mask-loss", "--eod-token", 7]], ids=str)
def test_packed_tokens_give_the_batches_of_the_cpu(
    tmp_path: Path, vocab: int, flags: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda: 0)
    corpus = write_corpus(tmp_path / "text")
    feed = Feed(plan(tmp_path / "run", corpus, "--vocab-size", vocab, *flags))
    assert feed.packed
    for got, first in zip(islice(feed.training_batches(0), 10), range(0, 20, 2), strict=True):
        wanted = feed.train.batch(range(first, first + 2))
        for name, value in vars(wanted).items():
            assert getattr(got, name).is_cuda
            assert torch.equal(getattr(got, name).cpu(), value), name


def test_blocks_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda: 0)
    feed = Feed(plan(tmp_path / "run", write_corpus(tmp_path / "text")))
    assert feed.train.block(range(2), torch.uint16).is_pinned()
