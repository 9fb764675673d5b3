"""Roles: consecutive ranks of a job, each role a world of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from megatron_distill.config.run import Layout
from megatron_distill.parallel import worlds
from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.parallel.worlds import Role, World, open_world
from tests.support.ranks import ranks


def role(name: str, *, tp: int = 1, pp: int = 1, dp: int = 1) -> Role:
    """A role of tp x pp x dp ranks."""
    return Role(name, Layout(tensor=tp, pipeline=pp, data=dp, num_microbatches=1))


@contextmanager
def opened(*roles: Role, store: str = "") -> Iterator[World]:
    """The world of this rank among `roles`; all ranks of the job meet in one file, whatever their role."""
    file = dist.FileStore(os.environ["STORE_FILE"] + store, -1)
    with mock.patch.object(worlds, "_store", return_value=file), open_world(roles, timeout_minutes=0.5) as world:
        yield world


def total(value: int, group: dist.ProcessGroup | None = None) -> int:
    """The sum of `value` over a group, the default one if none is given."""
    tensor = torch.tensor([value])
    dist.all_reduce(tensor, group=group)
    return int(tensor)


@ranks(4)
def test_two_roles_share_a_job_and_nothing_else(rank: int) -> None:
    with opened(role("student", tp=2), role("teacher", dp=2)) as world:
        from megatron.core import parallel_state

        expected = ("student", rank) if rank < 2 else ("teacher", rank - 2)
        assert (world.role.name, world.rank, world.job_rank) == (*expected, rank)
        assert world.is_first == (rank in (0, 2))
        assert (dist.get_rank(), dist.get_world_size()) == (world.rank, 2)
        assert parallel_state.get_tensor_model_parallel_world_size() == (2 if rank < 2 else 1)
        assert parallel_state.get_data_parallel_world_size() == (1 if rank < 2 else 2)
        mine = 10**rank
        assert total(mine) == (11 if rank < 2 else 1100)
        tensor = parallel_state.get_tensor_model_parallel_group()
        assert total(mine, tensor) == (11 if rank < 2 else mine)
        data = parallel_state.get_data_parallel_group()
        assert total(mine, data) == (mine if rank < 2 else 1100)


@ranks(4)
def test_each_role_has_tensor_ranks_of_its_own(rank: int) -> None:
    with opened(role("student", tp=2), role("teacher", tp=2)) as world:
        from megatron.core import parallel_state

        for _ in range(3):
            assert total(10**rank, parallel_state.get_tensor_model_parallel_group()) == (11 if rank < 2 else 1100)
        assert parallel_state.get_tensor_model_parallel_rank() == world.rank == rank % 2


@ranks(4)
def test_ranks_are_numbered_tensor_first_then_data_then_pipeline(rank: int) -> None:
    with opened(role("student", tp=2, pp=2)):
        from megatron.core import parallel_state

        assert parallel_state.get_tensor_model_parallel_rank() == rank % 2
        assert parallel_state.get_pipeline_model_parallel_rank() == rank // 2
    with opened(role("student", dp=2, pp=2), store="-again"):
        assert parallel_state.get_data_parallel_rank() == rank % 2
        assert parallel_state.get_pipeline_model_parallel_rank() == rank // 2


@ranks(3)
def test_a_role_may_do_without_the_others(rank: int) -> None:
    """Roles of unequal size; the first has left its world before the second uses its own."""
    with opened(role("student"), role("teacher", dp=2)) as world:
        meeting = dist.FileStore(os.environ["STORE_FILE"] + "-meeting", -1)
        if world.role.name == "teacher":
            meeting.wait(["student has left"], timedelta(seconds=30))
            assert total(10**rank) == 110
        else:
            assert total(7) == 7
    if world.role.name == "student":
        meeting.set("student has left", "")


@ranks(2)
def test_a_world_leaves_nothing_behind(rank: int) -> None:
    with opened(role("student", dp=2)):
        assert total(1) == 2
    assert not dist.is_initialized()
    with opened(role("student", tp=2), store="-again"):
        from megatron.core import parallel_state

        assert total(1, parallel_state.get_tensor_model_parallel_group()) == 2
    with pytest.raises(KeyError), opened(role("student", dp=2), store="-third"):
        raise KeyError("whatever happens inside")
    assert not dist.is_initialized() and not parallel_state.model_parallel_is_initialized()


def environ(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """What torchrun sets."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("rank", [3, 7])
def test_a_rank_beyond_all_roles(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch, RANK=rank, WORLD_SIZE=8)
    with (
        pytest.raises(RuntimeError, match=rf"rank {rank} of 8 belongs to none of the roles \['student', 'teacher'\]"),
        open_world((role("student"), role("teacher", dp=2))),
    ):
        pass
    assert not dist.is_initialized()


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch)
    assert (worlds.job_rank(), worlds.job_size()) == (0, 1)


def test_a_restarted_job_does_not_read_what_the_dead_one_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = dist.FileStore(str(tmp_path / "store"), -1)
    asked: list[tuple[object, ...]] = []

    def tcp_store(*arguments: object, **options: object) -> dist.Store:
        asked.append((*arguments, options["is_master"]))
        return shared

    monkeypatch.setattr(dist, "TCPStore", tcp_store)

    def store(rank: int, **values: object) -> dist.Store:
        environ(monkeypatch, MASTER_ADDR="node0", MASTER_PORT=1234, **values)
        return worlds._store(rank, 2, timedelta(seconds=5))

    store(0).set("key", "of the first")
    assert store(1).check(["key"])
    again = store(0, TORCHELASTIC_RESTART_COUNT=1)
    assert not again.check(["key"])
    again.set("key", "of the second")
    assert store(1).get("key") == b"of the first"
    store(0, TORCHELASTIC_USE_AGENT_STORE="True")
    assert [hosts for *_, hosts in asked] == [True, False, True, False, False]
    assert asked[0][:3] == ("node0", 1234, 2)


def test_a_port_that_is_taken_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        environ(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with pytest.raises(BridgeError, match=f"port {port} of 127.0.0.1 is in use by another program"):
            worlds._store(0, 2, timedelta(seconds=5))


def test_a_network_interface_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch, GLOO_SOCKET_IFNAME="nothing0")
    said = r"rank 0 cannot open connections .*nothing0.*GLOO_SOCKET_IFNAME"
    with pytest.raises(BridgeError, match=said), open_world((role("student"),)):
        pass
    assert not dist.is_initialized()
