"""Sharded checkpoints by megatron-core's dist_checkpointing: written aside, renamed when whole, loaded on any layout.

    RUN/latest                        names the newest finished checkpoint
    RUN/checkpoints/iter_0000100/     manifest.json and megatron-core's files

Tensors are stored under the original indices of their layers, so a model that has fewer layers than the checkpoint
loads the ones it has: removing layers from a run is resuming it with fewer.
"""

from __future__ import annotations

import os
import queue
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.mapping import is_main_replica
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException, of all things

from megatron_distill.models.build import Decoder
from megatron_distill.optim.sharded_state import (
    load_optimizer_state,
    optimizer_steps,
    set_optimizer_steps,
    sharded_optimizer_state,
)
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import FailedTogether, first_failure

from .manifest import NAME, Manifest, read_manifest

_PARTIAL = ".partial_"
"""What begins so is being written or removed, or was when a run died."""

_ROOM_FOR_THE_REST = 1 << 20
"""Bytes for the manifest, megatron-core's metadata and the metrics until the next checkpoint."""


def save_checkpoint(run: Path, manifest: Manifest, model: Decoder, optimizer: DistributedOptimizer, keep: int) -> Path:
    """Write a checkpoint; when this returns on any rank, it is complete on disk and `latest` names it.

    Collective over the role. `keep` newest checkpoints stay (0: all). A checkpoint of the same step is replaced, so the
    one that `latest` names must not be saved again.

    Raises:
        FailedTogether: the disk is full or not writable, on every rank; earlier checkpoints and `latest` are untouched.
    """
    final = run / "checkpoints" / f"iter_{manifest.iteration:07d}"
    partial = final.with_name(_PARTIAL + final.name)
    is_first = dist.get_rank() == 0
    state = _state(model, optimizer, loading=False)
    size = _size(state)
    state["steps"] = optimizer_steps(optimizer)
    with _failing_together(partial):
        if is_first:
            _drop_partial(partial.parent)
            partial.mkdir(parents=True)
            _check_room(partial, size)
    # For this queue megatron-core would start a server process, which only asynchronous saves need. It outlives a rank
    # that is killed, with its memory and with the rank's output open, so that `... | tee log` never ends.
    filesystem_async._results_queue = queue.Queue()
    with _failing_together(partial):
        try:
            dist_checkpointing.save(state, str(partial), content_metadata={"format": manifest.format})
        except Exception as error:
            # Of this rank alone, in between megatron-core's collectives: the others wait there until it leaves.
            raise _Alone(f"a file of the checkpoint {final.name} could not be written ({error})") from error
    with _failing_together(partial):
        if is_first:
            _finish(partial, final, manifest)
            _point_at(run, final.name)
            _drop_old(final, keep)
    return final


def publish_weights(run: Path, manifest: Manifest, write: Callable[[Path], None]) -> Path:
    """A checkpoint of nothing but weights, which `write` puts into the folder that it is given; by one process.

    Nothing of it stays if it fails.
    """
    final = run / "checkpoints" / f"iter_{manifest.iteration:07d}"
    partial = final.with_name(_PARTIAL + final.name)
    try:
        partial.mkdir(parents=True)
        write(partial)
        _finish(partial, final, manifest)
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise
    _point_at(run, final.name)
    return final


def load_checkpoint(folder: Path, model: Decoder, optimizer: DistributedOptimizer | None) -> Manifest:
    """Fill the model, and the optimizer if given, from a checkpoint of any layout. Collective over the role."""
    manifest = read_manifest(folder)
    state = _state(model, optimizer, loading=True)
    loaded = dist_checkpointing.load(state, str(folder))
    incompatible = model.load_state_dict(loaded["model"], strict=False)
    missing = [name for name in incompatible.missing_keys if not name.endswith("_extra_state")]
    assert not missing and not incompatible.unexpected_keys, incompatible
    if optimizer is not None:
        load_optimizer_state(optimizer, model.sharded_state_dict(), loaded["optimizer"])
        set_optimizer_steps(optimizer, dist_checkpointing.load_common_state_dict(str(folder))["steps"])
    return manifest


def _state(model: Decoder, optimizer: DistributedOptimizer | None, *, loading: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"model": model.sharded_state_dict()}
    if optimizer is not None:
        state["optimizer"] = sharded_optimizer_state(optimizer, state["model"], loading=loading)
    return state


def _size(state: dict[str, Any]) -> int:
    """Bytes that all ranks together will write, but for a few. Collective over the role."""
    sharded = (s for part in state.values() for s in part.values() if isinstance(s, ShardedTensor))
    own = sum(s.data.nbytes for s in sharded if s.data is not None and is_main_replica(s.replica_id))
    total = torch.tensor(own, dtype=torch.int64, device=device.current())
    dist.all_reduce(total)
    return int(total)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + _ROOM_FOR_THE_REST:
        raise OSError(f"it needs {size / 2**20:.1f} MiB, {folder.parent} has {free / 2**20:.1f} MiB left")


class _Alone(OSError):
    """What went wrong on this rank while others are in a collective, so they cannot be told."""


@contextmanager
def _failing_together(partial: Path) -> Iterator[None]:
    """Raise FailedTogether on every rank if any of them fails within: nobody waits for one that is gone."""
    failure = ""
    try:
        yield
    except _Alone:
        raise
    except (Exception, CheckpointException) as error:
        failure = (str(error).strip() or repr(error)).splitlines()[-1]
    failure = first_failure(failure)
    if not failure:
        return
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
    name = partial.name.removeprefix(_PARTIAL)
    raise FailedTogether(
        f"the checkpoint {name} could not be written ({failure}); is the disk full? earlier checkpoints are whole"
    )


def _finish(partial: Path, final: Path, manifest: Manifest) -> None:
    """Give a checkpoint that is written its manifest and, when all of it is on disk, its name."""
    files = {str(p.relative_to(partial)): p.stat().st_size for p in partial.rglob("*") if p.is_file()}
    for name in files:
        _flush(partial / name)
    replace(manifest, files=files).write(partial)
    _flush(partial)
    if final.exists():  # of an attempt that died before `latest` named it
        final.rename(final.with_name(f"{_PARTIAL}old_{final.name}"))
    partial.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point_at(run: Path, name: str) -> None:
    pointer = run / "latest.partial"
    pointer.write_text(name + "\n")
    _flush(pointer)
    pointer.rename(run / "latest")
    _flush(run)


def _drop_old(newest: Path, keep: int) -> None:
    finished = sorted(p for p in newest.parent.glob("iter_*") if (p / NAME).exists() and p.name <= newest.name)
    for folder in finished[:-keep] if keep else []:
        with suppress(OSError):  # the new checkpoint is whole all the same
            folder.rename(folder.with_name(f"{_PARTIAL}old_{folder.name}"))  # or a crash would leave half of it
    _drop_partial(newest.parent)


def _drop_partial(checkpoints: Path) -> None:
    for folder in checkpoints.glob(f"{_PARTIAL}*"):
        shutil.rmtree(folder, ignore_errors=True)
