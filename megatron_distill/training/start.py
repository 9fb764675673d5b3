"""Where a run starts, after every byte of what it starts from has been read."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from megatron_distill.checkpoint.verify import find_damage_together, go_back_to_whole
from megatron_distill.config.error import ConfigError
from megatron_distill.parallel.worlds import job_size

from .plan import RunPlan, make_plan


def verify_start(plan: RunPlan) -> RunPlan:
    """The plan, or one that starts from an older checkpoint, if newer ones are damaged. Collective over the role.

    Damaged ones are set aside, and the first rank says so.

    Raises:
        ConfigError: no checkpoint of the run is whole, or the weights of --load are damaged; nothing is changed.
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
    return plan
