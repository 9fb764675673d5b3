"""How the ranks of a job agree before they form a world: all start from the same input, or none starts.

Everything passes through the job's store, so it needs no process group: a rank that cannot start says why there, and no
other rank waits for it. Rank 0 compares what the ranks state and publishes a verdict, so the cost grows with the number
of ranks, not with its square.
"""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from megatron_distill.config.environment import job_place
from megatron_distill.config.error import ConfigError

from .bridge import BridgeError

_POLL_SECONDS = 0.02
"""Between two looks at the store; a larger job looks less often."""
_FIRST_SPEAKS_SECONDS = 2.0
"""How long other ranks of a node wait for the node's first rank to report the same failure."""
_FAREWELL_SECONDS = 20.0
"""How long the rank that hosts the store stays so that the others can read the verdict."""
_SHOWN = 3
"""Differences that a sentence names."""

Facts = Mapping[str, str]
"""What a rank was started with, by name. Names that begin with "_" are passed on, not compared."""


class Refused(ConfigError):
    """The job does not start: this rank or another one cannot."""

    def __init__(self, sentence: str, *, speaks: bool) -> None:
        super().__init__(sentence)
        self.speaks = speaks
        """Whether this rank is the one of its node that reports it."""


class Meeting:
    """One rank's place in the agreement. Every rank of the job takes part in every round, or refuses."""

    def __init__(self, store: dist.Store | None, rank: int, size: int, timeout: timedelta) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout
        self.store = None if store is None or size == 1 else dist.PrefixStore("meeting", store)
        self.poll_seconds = _POLL_SECONDS * max(1.0, size / 32)
        self.host = socket.gethostname()
        self.node = os.environ.get("GROUP_RANK", self.host)
        self._round = 0

    def agree(self, facts: Facts) -> Facts:
        """Compare `facts` over all ranks of the job; returns those of rank 0. Collective over the job.

        Raises:
            Refused: on every rank, if two ranks differ or one refuses.
            BridgeError: some ranks did not come in time.
        """
        if self.store is None:
            return facts
        key, self._round = f"round{self._round}", self._round + 1
        try:
            self.store.set(f"{key}/facts{self.rank}", json.dumps({"host": self.host, "facts": dict(facts)}))
            self.store.add(f"{key}/arrived", 1)
            if self.rank == 0:
                verdict = self._wait_for_all(key) or self._compare(key)
                self.store.set(f"{key}/verdict", json.dumps(verdict))
            else:
                verdict = self._wait_for_verdict(key)
            if verdict:
                raise self._refused(verdict)
            return dict(json.loads(self.store.get(f"{key}/facts0"))["facts"])
        except dist.DistError as error:
            raise BridgeError("the process that hosts the job's store has ended; see what rank 0 reports") from error

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Tell all ranks of the job if this one cannot start: a ConfigError within becomes a Refused here and there."""
        try:
            yield
        except Refused:
            raise
        except ConfigError as error:
            raise self.refuse(str(error)) from error

    def refuse(self, sentence: str, *, reported: bool = False) -> Refused:
        """Let every rank know that this one cannot start, and why; returns the error to end with.

        `reported`: this rank has printed the sentence already.
        """
        if self.store is None:
            return Refused(sentence, speaks=not reported)
        failure = {"rank": self.rank, "host": self.host, "sentence": sentence}
        self.store.set("refusal", json.dumps(failure))
        return self._refused(failure, reported=reported)

    def _refused(self, failure: dict[str, object], *, reported: bool = False) -> Refused:
        assert self.store is not None
        sentence = str(failure["sentence"])
        key = f"reported/{self.node}/{zlib.crc32(sentence.encode(errors='replace')):08x}"
        first = job_place().local_rank == 0
        deadline = time.monotonic() + (0 if first else _FIRST_SPEAKS_SECONDS)
        while not self.store.check([key]) and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        speaks = self.store.add(key, 1) == 1 and not reported
        self.leave()
        where = "" if failure["rank"] in (0, None) and self.rank == 0 else self._named(failure)
        return Refused(f"{where}{sentence}", speaks=speaks)

    def _named(self, failure: dict[str, object]) -> str:
        return "" if failure["rank"] is None else f"rank {failure['rank']} on {failure['host']}: "

    def leave(self) -> None:
        """End a job that does not start. The host of the store stays until the others have read the verdict."""
        if self.store is None:
            return
        self.store.add("left", 1)
        hosts = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while hosts and self.store.add("left", 0) < self.size and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)

    def _wait_for_all(self, key: str) -> dict[str, object] | None:
        """Rank 0's wait: None when every rank has come, or the failure of one that has refused."""
        assert self.store is not None
        deadline = time.monotonic() + self.timeout.total_seconds()
        while self.store.add(f"{key}/arrived", 0) < self.size:
            if self.store.check(["refusal"]):
                return dict(json.loads(self.store.get("refusal")))
            if time.monotonic() > deadline:
                missing = [r for r in range(self.size) if not self.store.check([f"{key}/facts{r}"])]
                raise BridgeError(_missing(missing, self.size, self.timeout))
            time.sleep(self.poll_seconds)
        return None

    def _wait_for_verdict(self, key: str) -> dict[str, object] | None:
        assert self.store is not None
        deadline = time.monotonic() + self.timeout.total_seconds()
        while not self.store.check([f"{key}/verdict"]):
            if self.store.check(["refusal"]):
                return dict(json.loads(self.store.get("refusal")))
            if time.monotonic() > deadline:
                raise BridgeError(_missing([], self.size, self.timeout))
            time.sleep(self.poll_seconds)
        found: dict[str, object] | None = json.loads(self.store.get(f"{key}/verdict"))
        return found

    def _compare(self, key: str) -> dict[str, object] | None:
        assert self.store is not None
        stated = [json.loads(self.store.get(f"{key}/facts{rank}")) for rank in range(self.size)]
        first = stated[0]
        for rank, other in enumerate(stated):
            ours, theirs = first["facts"], other["facts"]
            names = [name for name in (ours | theirs) if name[0] != "_" and ours.get(name) != theirs.get(name)]
            if names:
                more = f" and {len(names) - _SHOWN} more differences" if len(names) > _SHOWN else ""
                who = (f"rank {rank} on {other['host']}", theirs), (f"rank 0 on {first['host']}", ours)
                there, here = (f"{name} has {_listed(facts, names[:_SHOWN])}" for name, facts in who)
                sentence = f"{there}, {here}{more}; all ranks must start with the same flags, data and code"
                return {"rank": None, "host": "", "sentence": sentence}
        return None


def _listed(facts: Facts, names: list[str]) -> str:
    return " and ".join(f"{name} {facts.get(name, '(not given)')}" for name in names)


def _missing(ranks: list[int], size: int, timeout: timedelta) -> str:
    minutes = timeout.total_seconds() / 60
    if not ranks:
        return f"not all of the {size} ranks of the job came within {minutes:g} minutes; see the others"
    listed = f"{', '.join(map(str, ranks[:8]))}{', ...' if len(ranks) > 8 else ''}"
    return f"ranks {listed} of the {size} ranks of the job did not come within {minutes:g} minutes; see their output"
