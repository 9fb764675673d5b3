"""Writes the checkpoints of a run, one at a time, while training waits or while it goes on.

Planning a save is collective, and so is finishing it; in between every rank writes its own file, in a thread. Writing
holds no lock of Python's, so a thread is enough, and it leaves nothing behind when its process is killed.
"""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.mapping import is_main_replica
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException, of all things

from megatron_distill.config.error import disk_hint
from megatron_distill.models.build import Decoder
from megatron_distill.optim.sharded_state import optimizer_steps
from megatron_distill.parallel import device
from megatron_distill.parallel.worlds import FailedTogether, first_failure

from . import folder
from .manifest import Manifest
from .native import sharded_state
from .storage import write_items
from .tokenizer_files import checksums_of, keep_tokenizer


@dataclass
class _Writing:
    """A save that is under way on this rank."""

    manifest: Manifest
    final: Path
    request: AsyncRequest
    thread: Thread | None = None
    results: dict[int, Any] | None = None
    written: dict[str, folder.Written] = field(default_factory=dict)
    failure: str = ""

    @property
    def partial(self) -> Path:
        return folder.partial_folder(self.final)

    def write(self, buckets: list[Any]) -> None:
        """Write this rank's files; runs in the thread."""
        try:
            self.results = {}
            for number, (path, key, content) in enumerate(buckets):
                self.results[number], self.written[key] = write_items(Path(path), key, content)
        except Exception as error:  # `finish` tells all ranks
            self.failure = f"a file of the checkpoint {self.final.name} could not be written ({error})"


class Saver:
    """The one that writes to a run folder. Every method is collective over the role.

    `newest` is the newest checkpoint that is complete on disk and named by `latest`: all that a save has promised.
    """

    def __init__(
        self,
        run: Path,
        *,
        newest: Path | None = None,
        keep: int = 0,
        retain_interval: int = 0,
        background: bool = False,
        when_finished: Callable[[Path], None] | None = None,
    ) -> None:
        self.run, self.newest = run, newest
        self.keep, self.retain_interval, self.background = keep, retain_interval, background
        self.when_finished = when_finished
        self._writing: _Writing | None = None

    def save(self, manifest: Manifest, model: Decoder, optimizer: DistributedOptimizer) -> None:
        """Write a checkpoint; in the background if so asked, after waiting for the one before.

        A checkpoint of the same step is replaced, so the one that `latest` names must not be saved again. The room on
        the disk is checked before anything is written.

        Raises:
            FailedTogether: the disk is full or not writable, on every rank; earlier checkpoints are untouched. What
                goes wrong in the background is raised by the call that finds it.
        """
        self.wait()
        self._writing = self._start(manifest, model, optimizer)
        if not self.background:
            self.wait()

    def poll(self) -> None:
        """Finish the save that is under way if every rank has written its part; costs one number over the network."""
        if self._writing is None:
            return
        assert self._writing.thread is not None
        busy = torch.tensor(int(self._writing.thread.is_alive()), device=device.current())
        dist.all_reduce(busy)
        if not busy:
            self.wait()

    def wait(self) -> Path | None:
        """Finish the save that is under way, if there is one; returns `newest`."""
        if self._writing is None:
            return self.newest
        writing, self._writing = self._writing, None
        assert writing.thread is not None
        writing.thread.join()
        _finish(writing, self.keep, self.retain_interval)
        self.newest = writing.final
        if self.when_finished:
            self.when_finished(writing.final)
        return self.newest

    def _start(self, manifest: Manifest, model: Decoder, optimizer: DistributedOptimizer) -> _Writing:
        final = folder.final_folder(self.run, manifest.iteration)
        partial = folder.partial_folder(final)
        state = sharded_state(model, optimizer, loading=False)
        size = _size(state)
        alive = {s.data.data_ptr() for s in state["model"].values() if s.data is not None}
        state["steps"] = optimizer_steps(optimizer)
        with _failing_together(partial):
            if dist.get_rank() == 0:
                folder.begin(partial, size)
                kept = keep_tokenizer(manifest.tokenizer, self.run)
                manifest = replace(manifest, tokenizer=kept, tokenizer_checksums=checksums_of(self.run, kept))
        request = _plan(state, partial, manifest)
        writing = _Writing(manifest, final, request)
        writing.thread = Thread(target=writing.write, args=(_staged(request, alive, self.background),), daemon=True)
        writing.thread.start()
        return writing


def _plan(state: dict[str, Any], partial: Path, manifest: Manifest) -> AsyncRequest:
    """Who writes what, as megatron-core decides it; rank 0 writes the little that is not in tensors."""
    # For this queue megatron-core would start a server process. It outlives a rank that is killed, with its memory and
    # with the rank's output open, so that `... | tee log` never ends.
    filesystem_async._results_queue = queue.Queue()
    strategy = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1)
    with _failing_together(partial):
        try:
            return dist_checkpointing.save(
                state,
                str(partial),
                sharded_strategy=strategy,
                async_sharded_save=True,
                content_metadata={"format": manifest.format},
            )
        except Exception as error:
            # Of this rank alone, in between megatron-core's collectives: the others wait there until it leaves.
            raise _Alone(f"a file of the checkpoint could not be written ({error})") from error


def _staged(request: AsyncRequest, alive: set[int], background: bool) -> list[Any]:
    """What this rank is to write, on the CPU, and where training goes on meanwhile, apart from what it changes."""
    if request.preload_fn is None:
        return []
    buckets = request.preload_fn()  # from the GPU, if it is there
    if not background:
        return buckets

    def apart(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if tensor.data_ptr() in alive else tensor

    return [
        (path, key, (raw, [(item, apart(tensor)) for item, tensor in tensors])) for path, key, (raw, tensors) in buckets
    ]


def _finish(writing: _Writing, keep: int, retain_interval: int) -> None:
    with _failing_together(writing.partial):
        if writing.failure:
            raise OSError(writing.failure)
    with _failing_together(writing.partial):
        try:
            if writing.results:
                writing.request.async_fn_args[2].put(writing.results)
            for finalize in writing.request.finalize_fns:
                finalize()
        except (Exception, CheckpointException) as error:
            raise _Alone(f"the metadata of {writing.final.name} could not be written ({error})") from error
    parts: list[dict[str, folder.Written]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, writing.written)
    with _failing_together(writing.partial):
        if dist.get_rank() == 0:
            written = {name: file for part in parts for name, file in part.items()}
            folder.finish(writing.partial, writing.final, writing.manifest, written)
            folder.drop_old(writing.final, keep, retain_interval)


def _size(state: dict[str, Any]) -> int:
    """Bytes that all ranks together will write, but for a few. Collective over the role."""
    sharded = (s for part in state.values() for s in part.values() if isinstance(s, ShardedTensor))
    own = sum(s.data.nbytes for s in sharded if s.data is not None and is_main_replica(s.replica_id))
    total = torch.tensor(own, dtype=torch.int64, device=device.current())
    dist.all_reduce(total)
    return int(total)


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
    name, hint = partial.name.removeprefix(folder.PARTIAL), disk_hint(failure) or ";"
    raise FailedTogether(f"the checkpoint {name} could not be written ({failure}){hint} earlier checkpoints are whole")
