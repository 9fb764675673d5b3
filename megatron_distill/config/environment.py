"""The variables by which torchrun tells a process its place in a job, read and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from .error import ConfigError
from .limits import RANKS, Range, shown


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """A process's place in its job; the defaults are those of a process that nothing started with others."""

    size: int = 1
    """Ranks of the job."""
    rank: int = 0
    local_rank: int = 0
    """Rank among those of this machine."""


def job_place(variables: Mapping[str, str] | None = None) -> JobPlace:
    """This process's place: what WORLD_SIZE, RANK and LOCAL_RANK of `variables` (default: the environment) say.

    Raises:
        ConfigError: one of them is no number, or lies outside the job.
    """
    given = os.environ if variables is None else variables
    size = _number(given, "WORLD_SIZE", 1, Range(least=1, most=RANKS))
    return JobPlace(
        size=size,
        rank=_number(given, "RANK", 0, _rank_below(size)),
        local_rank=_number(given, "LOCAL_RANK", 0, _rank_below(size)),
    )


def meeting_point(variables: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Address and port at which the ranks of a job of several meet: MASTER_ADDR and MASTER_PORT.

    Raises:
        ConfigError: one of them is missing, or the port is no number.
    """
    given = os.environ if variables is None else variables
    missing = next((name for name in ("MASTER_ADDR", "MASTER_PORT") if not given.get(name, "").strip()), None)
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {given.get('WORLD_SIZE')}, but {missing} is not set; start ranks with torchrun, or unset "
            "WORLD_SIZE to use one process"
        )
    address = given["MASTER_ADDR"]
    if not address.isascii() or not address.isprintable():
        raise ConfigError(f"the environment has MASTER_ADDR={shown(address)}, which is not the name of a machine")
    return address, _number(given, "MASTER_PORT", 0, Range(least=1, most=65535))


def _rank_below(size: int) -> Range:
    return Range(least=0, below=size)


def _number(given: Mapping[str, str], name: str, default: int, allowed: Range) -> int:
    text = given.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise ConfigError(
            f"the environment has {name}={shown(text)}, which is not a whole number; torchrun sets it, unset it to use "
            "one process"
        ) from error
    if problem := allowed(value):
        whole = f" (WORLD_SIZE={given.get('WORLD_SIZE', '1')})" if name.endswith("RANK") else ""
        raise ConfigError(f"the environment has {name}={value}, which {problem}{whole}; torchrun sets it, or unset it")
    return value
