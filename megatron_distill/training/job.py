"""One rank of a job, from its world to its end: a student that trains, or a teacher that serves it."""

from __future__ import annotations

from datetime import timedelta

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel import device, worlds
from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.parallel.lost import lost_peer
from megatron_distill.parallel.meeting import Meeting, Refused
from megatron_distill.parallel.worlds import FailedTogether, World, open_world

from .agreement import agree
from .loop import check_start, run
from .objective import Weighted
from .plan import RunPlan
from .start import verify_start
from .state import TooManySkippedSteps
from .teaching import bridges, roles, serve


class Failure(Exception):
    """How a rank ends that cannot go on."""

    def __init__(self, cause: Exception, exit_code: int, *, speaks: bool = True) -> None:
        super().__init__(str(cause))
        self.exit_code = exit_code
        """1: something outside the program; 2: wrong input; 3: too many steps without a finite gradient."""
        self.speaks = speaks
        """Whether this rank is the one to say it."""


def run_job(plan: RunPlan, terms: tuple[Weighted, ...]) -> None:
    """Join the world and do this rank's part; nothing if the run is finished.

    Raises:
        Failure: it cannot go on, alone or with the other ranks of the job.
    """
    timeout = plan.config.parallel.distributed_timeout_minutes
    try:
        store = worlds.open_store(timeout)
        meeting = Meeting(store, worlds.job_rank(), worlds.job_size(), timedelta(minutes=timeout))
        with meeting.refusing():
            device.prepare(worlds.local_rank())
        agree(plan, meeting)
        if plan.finished:
            return
        with open_world(roles(plan), timeout_minutes=timeout, bridges=bridges(plan, terms), store=store) as world:
            _do(plan, world, terms)
    except Refused as error:
        raise Failure(error, 2, speaks=error.speaks) from error
    except BridgeError as error:  # some ranks did not come
        raise Failure(error, 1) from error


def tell_job(sentence: str) -> Failure:
    """Let the other ranks of the job know why this one cannot start; returns what to end with.

    The first rank of a node prints the sentence itself, before anything that could take long.
    """
    patience = 0.5
    reported = worlds.local_rank() == 0
    try:
        meeting = Meeting(
            worlds.open_store(patience), worlds.job_rank(), worlds.job_size(), timedelta(minutes=patience)
        )
        refused = meeting.refuse(sentence, reported=reported)
    except BridgeError:  # nobody is there to be told
        refused = Refused(sentence, speaks=not reported)
    return Failure(refused, 2, speaks=refused.speaks)


def _do(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> None:
    try:
        _part(plan, world, terms)
    except Exception as error:
        said = lost_peer(error)
        if not said:
            raise
        sentence = (
            f"rank {world.job_rank} has lost another rank of the {world.role.name} ({said}); see the output of the "
            "rank that ended first, and give the same command again"
        )
        raise Failure(BridgeError(sentence), 1) from error


def _part(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> None:
    try:
        if world.role.name == "teacher":
            serve(plan, world, terms)
            return
        try:
            plan = verify_start(plan)
            check_start(plan)
        except ConfigError as error:  # on every rank of the role
            raise Failure(error, 2, speaks=world.is_first) from error
        run(plan, world, terms)
    except (TooManySkippedSteps, FailedTogether) as error:
        code = 3 if isinstance(error, TooManySkippedSteps) else 1
        raise Failure(error, code, speaks=world.is_first) from error
    except (ConfigError, OSError, BridgeError) as error:  # of this rank alone
        raise Failure(error, 2 if isinstance(error, ConfigError) else 1) from error
