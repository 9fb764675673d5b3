"""A process that makes parts: `python -m megatron_distill.data.prepare.worker`, started by `crew.py` and nobody else.

It reads JSON lines on standard input, first the recipe and then a job at a time, and writes JSON lines on standard
output. Tokens never pass between processes, and neither torch nor anything else large is imported.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_distill.config.error import ConfigError

from ..tokenizer import load_tokenizer
from .part_maker import Job, PartMaker
from .parts import PartFiles, Recipe
from .pieces import Piece


def main() -> None:
    """Make parts until there are no more jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the first process decides
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        begin = json.loads(lines.get())
        recipe = Recipe(**begin["recipe"])
        maker = PartMaker(recipe, load_tokenizer(recipe.tokenizer, begin["threads"]))
        while True:
            job = decode_job(json.loads(lines.get()))
            record = maker.make(job, lambda *counts: _say({"counts": counts}))
            _say({"record": record.to_json()})
    except ConfigError as error:
        _say({"error": str(error)})
    except OSError as error:
        name = None if error.filename is None else os.fsdecode(error.filename)
        _say({"error": error.strerror or str(error), "errno": error.errno, "filename": name})


def encode_job(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    piece = asdict(job.piece) | {"path": str(job.piece.path)}
    return {"piece": piece, "folder": str(job.files.folder), "number": job.files.number, "key": job.key}


def decode_job(said: dict[str, Any]) -> Job:
    """The job that `encode_job` wrote."""
    piece = Piece(**said["piece"] | {"path": Path(said["piece"]["path"])})
    return Job(piece, PartFiles(Path(said["folder"]), said["number"]), said["key"])


def _listen(lines: queue.SimpleQueue[bytes]) -> None:
    """Hand on what is said; when nobody can say anything more, the run was killed or is over, and so are we."""
    for line in os.fdopen(0, "rb", buffering=0):  # the interpreter cannot end while a buffered one waits
        lines.put(line)
    os._exit(0)


def _say(what: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
