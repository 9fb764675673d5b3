"""Where a run starts, after every byte of what it starts from has been read."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from megatron_distill.checkpoint.folder import move_aside
from megatron_distill.checkpoint.verify import find_damage_together, go_back_to_whole
from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.worlds import first_failure, job_size

from .plan import RunPlan, make_plan


def verify_start(plan: RunPlan) -> RunPlan:
    """The plan, or one that starts from an older checkpoint, if newer ones are damaged. Collective over the role.

    Damaged ones are set aside, and the first rank says so.

    Raises:
        ConfigError: no checkpoint of the run is whole, or the weights of --load are damaged; nothing is changed. Or
            what an abandoned run left in --save cannot be moved aside.
    """
    if plan.resume_from is not None:
        damages = go_back_to_whole(Path(plan.config.checkpoint.save))
        if not damages:
            return plan
        if dist.get_rank() == 0:
            for damage in damages:
                print(f"pretrain_distill.py: {damage}", file=sys.stderr)
        return make_plan(plan.config, job_size())
    damage = find_damage_together(plan.load_from) if plan.load_from else ""
    if damage:
        raise ConfigError(damage)
    _start_anew(plan)
    return plan


def _start_anew(plan: RunPlan) -> None:
    """Move aside what an abandoned run left in --save, so that nothing of it is taken for this run's."""
    failure, run = "", Path(plan.config.checkpoint.save)
    if dist.get_rank() == 0:
        try:
            aside = move_aside(run, keep=Path(plan.tokenizer) if plan.tokenizer else None)
            if aside is not None:
                print(
                    f"pretrain_distill.py: {run} has no `latest`, so the run starts anew; what it held is moved to "
                    f"{aside}",
                    file=sys.stderr,
                )
        except OSError as error:
            failure = str(error)
    failure = first_failure(failure)
    if failure:
        raise ConfigError(f"what {run} holds cannot be moved aside ({failure}); give another --save folder")
