"""One rank of a job, from its world to its end: a student that trains, or a teacher that serves it."""

from __future__ import annotations

from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.bridge import BridgeError
from megatron_distill.parallel.worlds import FailedTogether, World, open_world

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
    """Join the world and do this rank's part.

    Raises:
        Failure: it cannot go on, alone or with the other ranks of its role.
        ConfigError: on every rank of a role, what it is to start from cannot be used.
    """
    timeout = plan.config.parallel.distributed_timeout_minutes
    try:
        with open_world(roles(plan), timeout_minutes=timeout, bridges=bridges(plan, terms)) as world:
            if world.role.name == "student":
                plan = verify_start(plan)
                check_start(plan)
            _do(plan, world, terms)
    except BridgeError as error:  # another role did not come
        raise Failure(error, 1) from error


def _do(plan: RunPlan, world: World, terms: tuple[Weighted, ...]) -> None:
    try:
        if world.role.name == "teacher":
            serve(plan, world, terms)
        else:
            run(plan, world, terms)
    except (TooManySkippedSteps, FailedTogether) as error:
        code = 3 if isinstance(error, TooManySkippedSteps) else 1
        raise Failure(error, code, speaks=world.is_first) from error
    except (ConfigError, OSError, BridgeError) as error:  # of this rank alone
        raise Failure(error, 2 if isinstance(error, ConfigError) else 1) from error
