"""The folder of a run's checkpoints: written aside, renamed when whole, the oldest dropped.

RUN/latest                           names the newest finished checkpoint
RUN/checkpoints/iter_0000100/        manifest.json and megatron-core's files
RUN/checkpoints/.partial_*           being written or removed, or was when a run died
RUN/checkpoints/damaged_iter_*       found damaged, and left for a person to look at
RUN/tokenizer/                       the tokenizer, so that a run can be moved
RUN/before_1/                        what lay there when a run started anew, whole
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_distill.data.whole_file import write_whole

from .checksum import checksum
from .manifest import NAME, Manifest, checkpoint_name, step_of

PARTIAL = ".partial_"
DAMAGED = "damaged_"
_ROOM_FOR_THE_REST = 1 << 20
"""Bytes for the manifest, megatron-core's metadata and the metrics until the next checkpoint."""


@dataclass(frozen=True)
class Written:
    """A file as the rank that wrote it knows it."""

    size: int
    checksum: str


_OF_A_RUN = (
    *("evaluation.json", "result.json", "run.json", "flags.txt", "metrics.jsonl", "tensorboard", "wandb_id"),
    *("tokenizer", "checkpoints"),
)
"""What is moved aside when a run starts anew; checkpoints last, as without them nothing is worth keeping."""


def move_aside(run: Path, *, keep: Path | None = None) -> Path | None:
    """Move what an abandoned run left in `run`, checkpoints, scores, metrics and tokenizer, into RUN/before_N.

    Returns that folder, None if there was nothing to keep: no checkpoint, no scores, no result. Then only the copy of
    the tokenizer is removed. `keep` is not touched, nor what contains it.

    Raises:
        OSError: something cannot be renamed.
    """
    numbers = [int(p.name.removeprefix("before_")) for p in run.glob("before_*") if p.name[7:].isdecimal()]
    aside = run / f"before_{max(numbers, default=0) + 1}"
    partial = run / ".partial_before"  # of a start that was killed while it moved, perhaps
    wanted = [run / name for name in _OF_A_RUN if os.path.lexists(run / name)]
    wanted = [path for path in wanted if keep is None or not keep.absolute().is_relative_to(path.absolute())]
    scores = [run / name for name in ("evaluation.json", "result.json")]
    if not partial.exists() and not any(map(os.path.lexists, scores)) and not _has_checkpoints(run):
        if run / "tokenizer" in wanted and not (run / "tokenizer").is_symlink():
            shutil.rmtree(run / "tokenizer")
        return None
    partial.mkdir(exist_ok=True)
    for path in wanted:
        path.rename(partial / path.name)
    flush(partial)
    partial.rename(aside)
    flush(run)
    return aside


def _has_checkpoints(run: Path) -> bool:
    names = (p.name for p in (run / "checkpoints").glob("*"))
    return any(not name.startswith(PARTIAL) for name in names)


def final_folder(run: Path, iteration: int) -> Path:
    """Where the checkpoint after `iteration` steps lies when it is whole."""
    return run / "checkpoints" / checkpoint_name(iteration)


def partial_folder(final: Path) -> Path:
    """Where it is written."""
    return final.with_name(PARTIAL + final.name)


def begin(partial: Path, size: int) -> None:
    """Make the folder to write `size` bytes into, and clear away what a crash has left.

    Raises:
        OSError: they will not fit on the disk.
    """
    drop_partial(partial.parent)
    partial.mkdir(parents=True)
    free = shutil.disk_usage(partial).free
    needed = size + _ROOM_FOR_THE_REST
    if free < needed:
        raise OSError(f"it needs {needed / 2**20:.1f} MiB, {partial.parent} has {free / 2**20:.1f} MiB left")


def finish(partial: Path, final: Path, manifest: Manifest, written: dict[str, Written]) -> None:
    """Give a checkpoint that is written its manifest and, when all of it is on disk, its name, and let `latest` say so.

    `written` are the files that all ranks have flushed, with sizes and checksums as those who wrote them know; the
    other files are small.

    Raises:
        OSError: a file that some rank wrote is not there, or has another size; the folder keeps its name.
    """
    files = {str(p.relative_to(partial)): p.stat().st_size for p in partial.rglob("*") if p.is_file()}
    for name, file in sorted(written.items()):
        if files.get(name) != file.size:
            state = f"has {files[name]} bytes" if name in files else "is missing"
            raise OSError(
                f"{name} {state} in {partial.parent}, but a rank wrote {file.size} bytes; --save must be on a file "
                "system that all nodes share"
            )
    checksums = {name: file.checksum for name, file in written.items()}
    for name in files.keys() - checksums.keys():
        flush(partial / name)
    sums = {name: checksums.get(name) or checksum(partial / name) for name in files}
    replace(manifest, files=files, checksums=sums).write(partial)
    flush(partial)
    if (final / NAME).exists():  # of an attempt that died before `latest` named it
        final.rename(final.with_name(f"{PARTIAL}old_{final.name}"))
    elif final.exists():  # nothing that a save leaves there, so nothing to be removed
        final.rename(final.with_name(f"{DAMAGED}{final.name}_{secrets.token_hex(4)}"))
    partial.rename(final)
    flush(final.parent)
    point_at(final)


def publish_weights(run: Path, manifest: Manifest, write: Callable[[Path], dict[str, Written]]) -> Path:
    """A checkpoint of nothing but weights, by one process: `write` puts files into the folder that it is given, flushes
    them and returns them.

    Nothing of the run stays if it fails.
    """
    final = final_folder(run, manifest.iteration)
    partial = partial_folder(final)
    try:
        partial.mkdir(parents=True)
        finish(partial, final, manifest, write(partial))
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise
    return final


def point_at(final: Path) -> None:
    """Let the run's `latest` name a checkpoint."""
    run = final.parent.parent
    write_whole(run / "latest", final.name + "\n")
    flush(run)


def drop_old(newest: Path, keep: int, every: int) -> None:
    """Remove all checkpoints but the `keep` newest (0: all stay) and those of multiples of `every` steps (0: none).

    What has another name than this program gives, such as a copy that a person made, stays and does not count.
    """
    steps = {p: step for p in newest.parent.glob("iter_*") if (step := step_of(p)) is not None and (p / NAME).exists()}
    finished = sorted((p for p in steps if steps[p] <= steps.get(newest, 0)), key=lambda p: steps[p])
    for folder in finished[:-keep] if keep else []:
        if every and steps[folder] % every == 0:
            continue
        with suppress(OSError):  # the new checkpoint is whole all the same
            folder.rename(folder.with_name(f"{PARTIAL}old_{folder.name}"))  # or a crash would leave half of it
    drop_partial(newest.parent)


def drop_partial(checkpoints: Path) -> None:
    """Remove what is half written or half removed."""
    for path in checkpoints.glob(f"{PARTIAL}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def flush(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
