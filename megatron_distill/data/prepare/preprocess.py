"""Text to a corpus: cut the shards into pieces, make a part of each, join the parts.

Killed at any moment, the same call goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_distill.config.error import ConfigError

from ..index_file import token_dtype
from ..tokenizer import Tokenizer, fingerprint, load_tokenizer
from .corpus import expand
from .crew import make_parts
from .lock import only_writer
from .merge import Merge, remove
from .part_maker import KEPT_PLACES, Job
from .parts import PartFiles, Recipe, Record
from .pieces import cut
from .progress import ProgressLine


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for."""

    inputs: Sequence[str]
    tokenizer: str
    output_prefix: str
    text_key: str = "text"
    append_eod: bool = True
    instructions: bool = False
    max_prompt_tokens: int = 256
    on_error: str = "stop"
    """"stop" or "skip"."""
    workers: int | None = None
    """Cores; all that this process may use if absent."""


@dataclass(frozen=True)
class Outcome:
    """What was made."""

    num_documents: int
    num_tokens: int
    num_compared: int
    """Texts whose ids two libraries agreed on."""
    engines: dict[str, int]
    """Parts by `parts.Record.engine`."""
    num_skipped: int
    skipped: list[str]
    """The first places that were left out."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> Outcome:
        """The sum of parts."""
        return cls(
            num_documents=sum(record.num_documents for record in records),
            num_tokens=sum(record.num_tokens for record in records),
            num_compared=sum(record.num_compared for record in records),
            engines=dict(Counter(record.engine for record in records)),
            num_skipped=sum(record.num_skipped for record in records),
            skipped=[place for record in records for place in record.skipped][:KEPT_PLACES],
        )


Make = Callable[[list[Job], ProgressLine], dict[int, Record]]
"""Makes parts and returns their records by number."""


def preprocess(request: Request) -> Outcome:
    """Write `output_prefix`.bin and .idx; a corpus of that name is replaced at the very end.

    Raises:
        ConfigError: wrong input, named with file and line; finished parts stay for the next call, nothing else does.
        OSError: what the system does not let us do; the same.
    """
    workers = _num_cores() if request.workers is None else request.workers
    if workers < 1:
        raise ConfigError(f"--workers {workers} must be at least 1")
    tokenizer = load_tokenizer(request.tokenizer, workers)
    for kind in ("bin", "idx"):
        if Path(f"{request.output_prefix}.{kind}").is_dir():
            raise ConfigError(f"{request.output_prefix}.{kind} is a folder; give another --output-prefix")
    recipe = _recipe(request, tokenizer)
    folder = Path(f"{request.output_prefix}.parts")
    pieces = [piece for path in expand(list(request.inputs)) for piece in cut(path)]
    jobs = [Job(piece, PartFiles(folder, i), recipe.key(piece)) for i, piece in enumerate(pieces)]
    with only_writer(folder) as lock:

        def make(missing: list[Job], progress: ProgressLine) -> dict[int, Record]:
            return make_parts(recipe, tokenizer, missing, workers, lock, progress.update)

        try:
            return _run(request, jobs, Merge(folder, request.output_prefix), make)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ConfigError(f"{folder}: {error.strerror}; free some") from error
            raise
        finally:
            _tidy(folder)


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _recipe(request: Request, tokenizer: Tokenizer) -> Recipe:
    return Recipe(
        tokenizer=request.tokenizer,
        tokenizer_fingerprint=fingerprint(request.tokenizer),
        text_key=request.text_key,
        append_eod=request.append_eod,
        instructions=request.instructions,
        max_prompt_tokens=request.max_prompt_tokens if request.instructions else 0,
        skip_bad_lines=request.on_error == "skip",
        dtype=token_dtype(tokenizer.vocab_size).name,
        eod=tokenizer.eod_id if request.append_eod else -1,
    )


def _run(request: Request, jobs: list[Job], merge: Merge, make: Make) -> Outcome:
    key = hashlib.sha256("".join(job.key for job in jobs).encode()).hexdigest()
    sealed = merge.publish()  # of a run that was killed as it finished
    if sealed and sealed["key"] == key:
        return Outcome(**sealed["outcome"])
    records = _find_parts(jobs, merge)
    missing = [job for job in jobs if job.files.number not in records]
    progress = ProgressLine(len(jobs), sum(job.piece.num_bytes for job in jobs))
    for number, record in records.items():
        progress.already(jobs[number].piece.num_bytes, record.num_documents, record.num_tokens)
    if missing:
        records |= make(missing, progress)
    progress.finish()
    made = [records[number] for number in range(len(jobs))]
    if not any(record.num_tokens for record in made):
        remove(job.files.record for job in jobs)
        raise ConfigError(f"{', '.join(request.inputs)} hold no text")
    outcome = Outcome.of(made)
    merge.run([job.files for job in jobs], made)
    merge.seal({"key": key, "outcome": asdict(outcome)})
    merge.publish()
    return outcome


def _find_parts(jobs: list[Job], merge: Merge) -> dict[int, Record]:
    """Records of the parts that can be used; all other files are taken away."""
    found = {job.files.number: job.files.read_record(job.key) for job in jobs}
    records = {number: record for number, record in found.items() if record is not None}
    if merge.has_begun and len(records) == len(jobs):
        return records
    records = {number: record for number, record in records.items() if jobs[number].files.are_whole(record)}
    kept = {merge.folder / "lock"}
    for number in records:
        files = jobs[number].files
        kept |= {files.bin, files.idx, files.record}
    stale = [path for path in merge.folder.iterdir() if path not in kept]
    remove(stale)
    if records:
        print(f"{len(records)} of {len(jobs)} parts are there from an earlier run", flush=True)
    if any(path.suffix == ".json" for path in stale):
        print("parts of another text, tokenizer or flag are there and will be made anew", flush=True)
    return records


def _tidy(folder: Path) -> None:
    """Take away what no later call can use; the folder too, if that is all there is."""
    if not any(folder.glob("*.json")):
        shutil.rmtree(folder, ignore_errors=True)
        return
    remove(folder.glob("*.partial"))
