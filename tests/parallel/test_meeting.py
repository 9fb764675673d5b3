"""Ranks that agree, differ or refuse before there is a world."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch.distributed as dist

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.parallel.meeting import Meeting, Refused
from tests.support.ranks import ranks


def meet(rank: int, size: int, *, seconds: float = 30.0) -> Meeting:
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the file that they meet in outlives rank 0
    return Meeting(dist.FileStore(os.environ["STORE_FILE"], -1), rank, size, timedelta(seconds=seconds))


@ranks(3)
def test_alike_they_learn_what_rank_0_passes_on(rank: int) -> None:
    meeting = meet(rank, 3)
    for number in range(3):
        first = meeting.agree({"--lr": "1", "_token": f"{rank} {number}"})
        assert first == {"--lr": "1", "_token": f"0 {number}"}


@ranks(3)
def test_a_difference_is_named_on_every_rank_and_reported_by_one(rank: int) -> None:
    meeting = meet(rank, 3)
    facts = {"--lr": "1e-4" if rank == 2 else "3e-4", "torch": "2"} | ({"--seed": "1"} if rank == 2 else {})
    with pytest.raises(
        Refused, match=r"rank 2 on .* has --lr 1e-4 and --seed 1, rank 0 on .* has --lr 3e-4 and "
    ) as said:
        meeting.agree(facts)
    assert "--seed (not given)" in str(said.value)
    dist.FileStore(os.environ["STORE_FILE"] + "-reported", -1).add("count", int(said.value.speaks))
    meeting.store.add("counted", 1)  # type: ignore[union-attr]
    while meeting.store.add("counted", 0) < 3:  # type: ignore[union-attr]
        pass
    assert dist.FileStore(os.environ["STORE_FILE"] + "-reported", -1).add("count", 0) == 1


@ranks(3)
def test_who_refuses_tells_the_others_even_if_one_never_comes(rank: int) -> None:
    if rank == 2:
        return
    meeting = meet(rank, 3)
    with pytest.raises(Refused, match="no data here") as said:
        with meeting.refusing():
            if rank == 1:
                raise ConfigError("no data here")
        meeting.agree({})
    assert str(said.value).startswith("rank 1 on ")


@ranks(3)
def test_ranks_that_do_not_come_are_named(rank: int) -> None:
    if rank == 1:
        return
    with pytest.raises(BridgeError, match="ranks 1 of the 3" if rank == 0 else "not all of the 3 ranks"):
        meet(rank, 3, seconds=0.5).agree({})


def test_alone_there_is_nothing_to_compare() -> None:
    meeting = Meeting(None, 0, 1, timedelta(seconds=1))
    assert meeting.agree({"--lr": "1"}) == {"--lr": "1"}
    with pytest.raises(Refused) as said, meeting.refusing():
        raise ConfigError("wrong")
    assert said.value.speaks
