"""Text to a corpus: cut the shards into pieces, make a part of each, join the parts.

Killed at any moment, the same call goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_distill.config.error import ConfigError

from ..corpus_record import CorpusRecord
from ..index_file import token_dtype
from ..tokenizer import Tokenizer, checksum, fingerprint_of, load_tokenizer
from .corpus import expand
from .crew import make_parts
from .frame import NONE, Frame, frame_of
from .lock import only_writer
from .merge import Merge
from .outcome import Outcome
from .output import check_output
from .part_maker import Job
from .parts import PartFiles, Recipe, Record
from .parts_folder import check_is_ours, remove, tidy
from .pieces import cut
from .progress import ProgressLine
from .resume import find_parts


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for."""

    inputs: Sequence[str]
    tokenizer: str
    output_prefix: str
    text_key: str = "text"
    append_eod: bool = True
    eod_token: str | None = None
    """A token or its id; the one that the tokenizer names if absent."""
    prepend_bos: bool | None = None
    """As the tokenizer does it if absent."""
    instructions: bool = False
    max_prompt_tokens: int = 256
    on_error: str = "stop"
    """"stop" or "skip"."""
    workers: int | None = None
    """Cores; all that this process may use if absent."""


Make = Callable[[list[Job]], dict[int, Record]]
"""Makes parts and returns their records by number."""


def preprocess(request: Request) -> Outcome:
    """Write `output_prefix`.bin, .idx and .meta.json; a corpus of that name is replaced at the very end.

    Raises:
        ConfigError: wrong input, named with file and line; finished parts stay for the next call, nothing else does.
        OSError: what the system does not let us do; the same.
    """
    _check(request)
    workers = min(request.workers or _num_cores(), _num_cores())
    tokenizer = load_tokenizer(request.tokenizer, workers)
    frame = frame_of(
        tokenizer,
        prepend_bos=request.prepend_bos,
        append_eod=request.append_eod,
        eod_token=request.eod_token,
    )
    recipe = _recipe(request, tokenizer, frame)
    folder = Path(f"{request.output_prefix}.parts")
    paths = expand(list(request.inputs))
    check_is_ours(folder, paths)
    pieces = [piece for path in paths for piece in cut(path)]
    jobs = [Job(piece, PartFiles(folder, i), recipe.key(piece)) for i, piece in enumerate(pieces)]
    progress = ProgressLine(len(jobs), sum(job.piece.num_bytes for job in jobs), sys.stdout)
    merge = Merge(folder, request.output_prefix, progress.say)
    check_output(request.output_prefix, unfinished=merge.is_sealed)
    for path, times in Counter(paths).items():
        if times > 1:
            progress.say(f"{path} is given {times} times, and its documents are written as often")
    with only_writer(folder) as lock:

        def make(missing: list[Job]) -> dict[int, Record]:
            return make_parts(recipe, tokenizer, missing, workers, lock, progress.update)

        try:
            return _run(request, jobs, merge, progress, make, _Corpus(tokenizer, frame))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ConfigError(f"{folder}: {error.strerror}; free some") from error
            raise
        finally:
            tidy(folder)


@dataclass(frozen=True)
class _Corpus:
    """What is known of a corpus before it is made."""

    tokenizer: Tokenizer
    frame: Frame

    def record(self, outcome: Outcome) -> CorpusRecord:
        """The record that is kept beside it."""
        return CorpusRecord(
            tokenizer=fingerprint_of(self.tokenizer),
            vocab_size=self.tokenizer.vocab_size,
            eod_id=None if self.frame.eod == NONE else self.frame.eod,
            bos_id=None if self.frame.bos == NONE else self.frame.bos,
            num_documents=outcome.num_documents,
            num_tokens=outcome.num_tokens,
        )


def _check(request: Request) -> None:
    if request.workers is not None and request.workers < 1:
        raise ConfigError(f"--workers {request.workers} must be at least 1")
    if request.instructions and request.max_prompt_tokens < 1:
        raise ConfigError(f"--max-prompt-tokens {request.max_prompt_tokens} must be at least 1")


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _recipe(request: Request, tokenizer: Tokenizer, frame: Frame) -> Recipe:
    return Recipe(
        tokenizer=request.tokenizer,
        tokenizer_checksum=checksum(request.tokenizer),
        text_key=request.text_key,
        instructions=request.instructions,
        max_prompt_tokens=request.max_prompt_tokens if request.instructions else 0,
        skip_bad_lines=request.on_error == "skip",
        dtype=token_dtype(tokenizer.vocab_size).name,
        bos=frame.bos,
        eod=frame.eod,
    )


def _run(
    request: Request, jobs: list[Job], merge: Merge, progress: ProgressLine, make: Make, corpus: _Corpus
) -> Outcome:
    key = hashlib.sha256("".join(job.key for job in jobs).encode()).hexdigest()
    sealed = merge.publish()  # of a run that was killed as it finished
    if sealed and sealed.key == key:
        return sealed.outcome
    records = find_parts(jobs, merge)
    missing = [job for job in jobs if job.files.number not in records]
    progress.start()
    for number, record in records.items():
        progress.already(jobs[number].piece.num_bytes, record.num_documents, record.num_tokens)
    if missing:
        records |= make(missing)
    progress.finish()
    made = [records[number] for number in range(len(jobs))]
    if not any(record.num_tokens for record in made):
        remove(job.files.record for job in jobs)
        raise ConfigError(f"{', '.join(request.inputs)} hold no text")
    outcome = Outcome.of(made, corpus.frame.describe(corpus.tokenizer))
    merge.run([job.files for job in jobs], made)
    merge.seal(key, outcome, corpus.record(outcome))
    merge.publish()
    return outcome
