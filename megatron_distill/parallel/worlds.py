"""Roles: which ranks of a torchrun job do what. Each role is a torch.distributed world of its own.

Inside a role megatron-core's `parallel_state`, schedules, DDP and optimizer work unmodified, because its default
process group holds exactly the role's ranks. The first role is the student; a second one, the teacher, has the ranks
behind it, and a bridge joins those of both that exchange messages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from megatron_distill.config.environment import JobPlace, job_place, meeting_point
from megatron_distill.config.run import Layout

from . import device
from .bridge import Bridge, BridgeError, open_bridge
from .lost import short


@dataclass(frozen=True)
class Role:
    """A name and how many consecutive ranks of the job carry it."""

    name: str
    layout: Layout


@dataclass(frozen=True)
class World:
    """This process's place in the job and in its role."""

    role: Role
    rank: int
    """Rank within the role."""
    job_rank: int
    """Rank within the torchrun job."""
    bridge: Bridge | None = None
    """To the ranks of another role, if there is one."""
    store: dist.Store | None = None
    """Of the whole job, whatever the role."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0 of its role, which writes files and speaks."""
        return self.rank == 0


def job_size() -> int:
    """Ranks of the job that torchrun started; 1 without torchrun."""
    return job_place().size


def job_rank() -> int:
    """This process's rank in the job; 0 without torchrun."""
    return job_place().rank


def local_rank() -> int:
    """This process's number on its node; 0 without torchrun."""
    return job_place().local_rank


def open_store(timeout_minutes: float) -> dist.Store:
    """The store through which the ranks of the job find each other.

    Raises:
        BridgeError: not all of them came, or the one that hosts the store cannot be reached.
    """
    return _store(job_rank(), job_size(), timedelta(minutes=timeout_minutes))


@contextmanager
def open_world(
    roles: tuple[Role, ...],
    *,
    timeout_minutes: float = 10.0,
    bridges: tuple[tuple[int, ...], ...] = (),
    place: JobPlace | None = None,
    store: dist.Store | None = None,
) -> Iterator[World]:
    """Join this process's role and set up its tensor, pipeline and data parallel groups; leave them at the end.

    Roles take consecutive ranks of the job in the order given. Each of `bridges` names the ranks that it joins.
    `place` is this process's place in the job, by default what torchrun says; `JobPlace()` is alone. `store` is the
    job's, opened here if it is not given.
    """
    place = job_place() if place is None else place
    rank, size = place.rank, place.size
    timeout = timedelta(minutes=timeout_minutes)
    first = 0
    for role in roles:
        if rank < first + role.layout.world_size:
            break
        first += role.layout.world_size
    else:
        raise RuntimeError(f"rank {rank} of {size} belongs to none of the roles {[r.name for r in roles]}")
    device.prepare(place.local_rank)
    store = store or _store(rank, size, timeout)
    try:
        dist.init_process_group(
            device.backend(),
            store=dist.PrefixStore(role.name, store),
            rank=rank - first,
            world_size=role.layout.world_size,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise BridgeError(
            f"rank {rank} cannot open connections to other ranks ({short(error)}); is the network interface there that "
            "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names?"
        ) from error
    try:
        _open_groups(role.layout, timeout_minutes)
        bridge = None
        for number, members in enumerate(bridges):
            if rank in members:
                names = {member: _name(roles, member) for member in members}
                bridge = open_bridge(dist.PrefixStore(f"bridge{number}", store), members, names, rank, timeout)
        yield World(role=role, rank=rank - first, job_rank=rank, bridge=bridge, store=store)
    finally:
        _close_groups()
        if dist.is_initialized():
            dist.destroy_process_group()


def _name(roles: tuple[Role, ...], rank: int) -> str:
    """What a rank of the job is called in messages."""
    for role in roles:
        if rank < role.layout.world_size:
            return f"{role.name} rank {rank}"
        rank -= role.layout.world_size
    raise IndexError(rank)


class FailedTogether(OSError):
    """What went wrong on one rank, raised on every rank of its role; the first one says it."""


def first_failure(failure: str) -> str:
    """What the first rank with a failure to tell says, "" if there is none. Collective over the role."""
    failures: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    return next(filter(None, failures), "")


def _store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    if size == 1:
        return dist.HashStore()
    address, port = meeting_point()
    # torchrun's agent hosts the store unless it says otherwise.
    hosts_it = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = dist.TCPStore(address, port, size, is_master=hosts_it, timeout=timeout)
    except dist.DistStoreError as error:
        minutes = timeout.total_seconds() / 60
        raise BridgeError(
            f"not all of the {size} ranks of the job came within {minutes:g} minutes; see the others"
        ) from error
    except dist.DistNetworkError as error:
        if hosts_it and "EADDRINUSE" in str(error):
            raise BridgeError(
                f"port {port} of {address} is in use by another program, perhaps a job that has not ended; set "
                "MASTER_PORT to a free one on all ranks"
            ) from error
        raise BridgeError(
            f"rank {rank} cannot reach MASTER_ADDR {address}, port {port}: is rank 0 running there, and the port open?"
        ) from error
    # A restarted job must not read what the dead one wrote.
    return dist.PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _open_groups(layout: Layout, timeout_minutes: float) -> None:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        distributed_timeout_minutes=int(max(1, timeout_minutes)),
        create_gloo_process_groups=device.is_cuda(),
    )
    model_parallel_cuda_manual_seed(1)  # dropout is 0 everywhere; megatron-core wants its generators to exist


def _close_groups() -> None:
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
