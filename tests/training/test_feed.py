"""What a rank reads: options and orders from flags to batches, resuming, and the path over packed tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from megatron.core import parallel_state
from torch import Tensor

from megatron_distill.batch import Batch
from megatron_distill.config.error import ConfigError
from megatron_distill.data import device_expand
from megatron_distill.training.feed import Feed
from tests.support.corpora import write_corpus
from tests.support.worlds import plan

EOD = 7


@pytest.fixture
def prefixes(tmp_path: Path) -> list[Path]:
    return [write_corpus(tmp_path / f"text{seed}", documents=9, seed=seed) for seed in range(2)]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda: 0)


def feed(prefixes: list[Path], *flags: object) -> Feed:
    blend = ["--data-path", "2", prefixes[0], "1", prefixes[1]]
    return Feed(plan(prefixes[0].parent / "run", prefixes[0], *blend, "--split", "70,30,0", *flags))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


OPTIONS = [
    [],
    ["--data-order", "megatron"],
    ["--random-offset"],
    ["--reset-position-ids", "--eod-token", EOD],
    ["--eod-mask-loss", "--eod-token", EOD, "--data-order", "megatron"],
]


@pytest.mark.parametrize("flags", OPTIONS, ids=lambda flags: " ".join(map(str, flags)) or "none")
def test_any_position_can_be_resumed_from(prefixes: list[Path], flags: list[object]) -> None:
    whole = list(feed(prefixes, *flags).training_batches(0))
    assert len(whole) == 10 * 2  # steps, and micro-batches of each: the run ends with its last sample
    late = list(feed(prefixes, *flags).training_batches(6 * 4))
    assert len(late) == 8
    assert all(same(a, b) for a, b in zip(whole[12:], late, strict=True))


@pytest.mark.parametrize("flags", OPTIONS, ids=lambda flags: " ".join(map(str, flags)) or "none")
def test_ranks_share_what_one_rank_reads(
    prefixes: list[Path], flags: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = feed(prefixes, *flags)
    rows = torch.cat([batch.tokens for batch in alone.training_batches(0)])
    for rank in range(2):
        monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda rank=rank: rank)
        half = feed(prefixes, *flags)
        half.plan = replace(half.plan, layout=replace(half.plan.layout, data=2))
        got = torch.cat([batch.tokens for batch in half.training_batches(0)])
        assert got.equal(rows.view(-1, 2, 2, 32)[:, rank].flatten(0, 1))


def expand_by_slicing(block: Tensor) -> Batch:
    """What the kernel does, on any device."""
    wide = block.to(torch.int64)
    rows, seq = wide.shape[0], wide.shape[1] - 1
    return Batch(
        tokens=wide[:, :-1],
        labels=wide[:, 1:],
        loss_mask=torch.ones(rows, seq),
        position_ids=torch.arange(seq).expand(rows, -1),
    )


@pytest.mark.parametrize("flags", OPTIONS, ids=lambda flags: " ".join(map(str, flags)) or "none")
@pytest.mark.parametrize(("vocab", "dtype"), [(60, torch.uint16), (70_000, torch.int32)])
def test_packed_tokens_give_the_batches_of_the_cpu(
    prefixes: list[Path], flags: list[object], vocab: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*flags, "--vocab-size", vocab]
    plain = feed(prefixes, *flags)
    wanted = [*islice(plain.training_batches(0), 5), *plain.validation_batches()[0]]
    blocks: list[Tensor] = []

    def expand(block: Tensor) -> Batch:
        blocks.append(block)
        return expand_by_slicing(block)

    monkeypatch.setattr(device_expand, "available", lambda: True)
    monkeypatch.setattr(device_expand, "expand", expand)
    packed = feed(prefixes, *flags)
    batches: Iterator[Batch] = packed.training_batches(0)
    got = [*islice(batches, 5), *packed.validation_batches()[0]]
    assert len(got) == len(wanted) == len(blocks)
    assert {block.dtype for block in blocks} == {dtype}
    assert all(same(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_what_the_flags_say_of_the_ends_of_documents_is_done(
    packed: bool, prefixes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_expand, "available", lambda: packed)
    monkeypatch.setattr(device_expand, "expand", expand_by_slicing)
    reading = feed(prefixes, "--reset-position-ids", "--eod-mask-loss", "--eod-token", EOD)
    for batch in (next(reading.training_batches(0)), next(reading.validation_batches()[0])):
        ends = batch.tokens == EOD
        assert ends.any() and batch.loss_mask.equal((~ends).float())
        assert not batch.position_ids[:, 1:][ends[:, :-1]].any()
        assert batch.position_ids[:, 1:][~ends[:, :-1]].equal(batch.position_ids[:, :-1][~ends[:, :-1]] + 1)


def test_a_token_the_plan_did_not_see_ends_the_run_with_the_name_of_its_corpus(prefixes: list[Path]) -> None:
    reading = feed(prefixes)
    write_corpus(prefixes[1], documents=9, vocab=600)  # as if it were too large to be scanned beforehand
    reading = Feed(reading.plan)
    with pytest.raises(ConfigError, match=f"{prefixes[1]} has token .*, but the model knows only 60 tokens"):
        list(reading.training_batches(0))


def test_a_checkpoint_knows_what_its_position_means(prefixes: list[Path]) -> None:
    def order(*flags: object) -> dict[str, object]:
        return plan(prefixes[0].parent / "run", prefixes[0], *flags).sample_order

    text = "1800 tokens in 9 documents"
    assert order()["data-path"] == f"with {text}"
    assert order("--data-path", *prefixes)["data-path"] == f"with {text}, {text}"
    assert order("--data-path", 2, prefixes[0], 0.5, prefixes[1])["data-path"] == f"with 2 x {text}, 0.5 x {text}"
    assert (order()["data-order"], order("--random-offset")["random-offset"]) == ("stream", True)
    assert "train-iters" not in order()  # a longer run begins as a shorter one
    assert order("--data-order", "megatron")["train-iters"] == 10
    before = order()["data-content"]
    write_corpus(prefixes[0], documents=9, seed=77)
    assert order()["data-path"] == f"with {text}" and order()["data-content"] != before
