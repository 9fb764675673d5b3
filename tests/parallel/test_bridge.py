"""Messages between ranks of different roles, and peers that are late or gone."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from megatron_distill.parallel.bridge import Bridge, BridgeError, open_bridge
from tests.support.ranks import ranks

NAMES = {2: "student rank 2", 5: "teacher rank 0", 7: "teacher rank 2"}
MEMBERS = tuple(NAMES)
"""Ranks of a larger job; those of the test are 0, 1, 2."""


def connect(rank: int, *, seconds: float = 30.0, members: tuple[int, ...] = MEMBERS) -> Bridge:
    store = dist.FileStore(os.environ["STORE_FILE"], -1)
    return open_bridge(store, members, NAMES, MEMBERS[rank], timedelta(seconds=seconds))


@ranks(3)
def test_tensors_and_numbers_come_in_order_from_each_peer(rank: int) -> None:
    """The student posts its receives before anything is sent, and for one peer before the other."""
    bridge, count = connect(rank), 20
    if rank == 0:
        posted = {peer: [bridge.receive(torch.empty(3), peer) for _ in range(count)] for peer in (7, 5)}
        assert not any(transfer.is_done() for transfer in posted[5])
        told = [bridge.tell(10 * peer + i, peer) for i in range(3) for peer in (5, 7)]
        for peer, transfers in posted.items():
            for i, transfer in enumerate(transfers):
                assert transfer.wait().tolist() == [peer, i, -i]
                assert transfer.is_done()
        for transfer in told:
            transfer.wait()
    else:
        own = MEMBERS[rank]
        assert [bridge.hear(2) for _ in range(3)] == [10 * own + i for i in range(3)]
        for transfer in [bridge.send(torch.tensor([own, i, -i], dtype=torch.float32), 2) for i in range(count)]:
            transfer.wait()


@ranks(2)
def test_a_send_holds_its_tensor_and_waits_for_nobody(rank: int) -> None:
    """Larger than any buffer of a socket; the sender has forgotten the tensor long before the receiver asks for it."""
    bridge, size = connect(rank, members=(2, 5)), 4_000_000
    if rank == 1:
        transfers = [bridge.send(torch.full((size,), float(i)), 2) for i in range(3)]
        assert not transfers[-1].is_done()
        bridge.tell(1, 2).wait()
        for transfer in transfers:
            transfer.wait()
    else:
        assert bridge.hear(5) == 1
        for i in range(3):
            assert (bridge.receive(torch.empty(size), 5).wait() == i).all()


@ranks(3)
def test_a_peer_that_is_late_is_named(rank: int) -> None:
    bridge = connect(rank, seconds=1.5)
    if rank == 0:
        transfer, begun = bridge.receive(torch.empty(3), 7), time.monotonic()
        with pytest.raises(BridgeError, match=r"nothing came from teacher rank 2 \(rank 7 of the job\) for 0.025 min"):
            transfer.wait()
        assert 1.4 < time.monotonic() - begun < 15
        dist.FileStore(os.environ["STORE_FILE"], -1).set("done", "1")
    else:
        dist.FileStore(os.environ["STORE_FILE"], -1).wait(["done"], timedelta(seconds=30))


@ranks(3)
def test_a_peer_that_dies_is_named_at_once(rank: int) -> None:
    """By who waits for a tensor of it, by who waits for a number, and by who asks only then."""
    bridge = connect(rank)
    gone = r"teacher rank 0 \(rank 5 of the job\) is gone"
    if rank == 1:
        bridge.tell(1, 2).wait()  # and this process ends
    elif rank == 0:
        transfer, begun = bridge.receive(torch.empty(3), 5), time.monotonic()
        assert bridge.hear(5) == 1
        with pytest.raises(BridgeError, match=gone):
            transfer.wait()
        with pytest.raises(BridgeError, match=gone):
            bridge.receive(torch.empty(3), 5).wait()
        assert time.monotonic() - begun < 15
        bridge.tell(2, 7).wait()  # the others are still there
    else:
        with pytest.raises(BridgeError, match=gone):
            bridge.hear(5)
        assert bridge.hear(2) == 2


@ranks(3)
def test_members_that_do_not_come_are_named(rank: int) -> None:
    if rank == 1:
        return
    with pytest.raises(BridgeError, match=r"^teacher rank 0 did not come within 0.025 minutes$"):
        connect(rank, seconds=1.5)
