"""A run that is killed at random moments and started again until it comes to its end."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

from tests.support.runs import ROOT, environment


def kill_at_random(command: list[str], log: Path, *, kills: int, within_s: float, seed: int) -> int:
    """Start `command` again and again; each start but the last is killed, with all of its processes, at a moment drawn
    from [0, `within_s`) after its first output. Returns how many of the kills hit a running process.

    The command may be any that goes on where it was: one process, torchrun, with a teacher or without.
    """
    moments = random.Random(seed)
    hits = 0
    for _ in range(kills):
        if _start(command, log, kill_after_s=moments.uniform(0, within_s)):
            hits += 1
    assert not _start(command, log, kill_after_s=None)
    return hits


def _start(command: list[str], log: Path, *, kill_after_s: float | None) -> bool:
    """Whether it was killed before its end."""
    with log.open("ab") as file:
        begun_at = file.tell()
        process = subprocess.Popen(
            command, env=environment(), cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and log.stat().st_size == begun_at and time.monotonic() < deadline:
            time.sleep(0.002)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            killed = process.poll() is None
            # Of a session of its own, so that torchrun's workers die in the same moment.
            subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], capture_output=True)
            process.wait()
            return killed and process.returncode == -signal.SIGKILL
        assert process.wait(120) == 0, log.read_text()[-3000:]
    return False
