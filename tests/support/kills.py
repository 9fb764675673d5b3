"""A run that is killed at random moments and started again until it comes to its end."""

from __future__ import annotations

import random
import time

from tests.support.programs import Program


def kill_at_random(*words: object, ranks: int, kills: int, within_s: float, seed: int) -> tuple[int, str]:
    """Start pretrain_distill.py again and again; each start but the last is killed, with all of its ranks, at a moment
    drawn from [0, `within_s`) after its first output. Returns how many of the kills hit a running process, and all that
    was said."""
    moments = random.Random(seed)
    hits, said = 0, []
    for kill in range(kills + 1):
        program = Program("pretrain_distill.py", *words, ranks=ranks)
        if kill < kills:
            while program.poll() is None and not program.output.stat().st_size:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, within_s))
            if program.poll() is None:
                program.kill()
                hits += 1
        done = program.finish(120)
        said.append(done.stdout + done.stderr)
        assert kill < kills or done.returncode == 0, said[-1][-3000:]
    return hits, "".join(said)
