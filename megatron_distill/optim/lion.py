"""Lion (Chen et al. 2023, arXiv:2302.06675), with the decay of the papers' trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch


class Lion(torch.optim.AdamW):
    """Sign of an interpolated momentum; one state tensor a parameter, `exp_avg`.

    In this order, for weights w with gradient g, momentum m (first 0), learning rate lr and its peak lr0:

        w <- w (1 - decay lr / lr0)     `decay="schedule"`: as in the papers, independent of the peak
        w <- w (1 - decay lr)           `decay="lr"`: as in AdamW
        w <- w - lr sign(beta1 m + (1 - beta1) g)
        m <- beta2 m + (1 - beta2) g

    A group may carry `initial_lr`, its peak; without it the `lr` it is built with is the peak. Every operation is
    elementwise, so a parameter cut into shards is updated to the same bits.
    """

    # An AdamW only by name: megatron-core's DistributedOptimizer accepts no other class.

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 1e-4,
        decay: Literal["schedule", "lr"] = "schedule",
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)
        self.decay = decay
        for group in self.param_groups:
            group.setdefault("initial_lr", lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        gradients: list[torch.Tensor] = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if "exp_avg" not in self.state[p]:
                self.state[p]["exp_avg"] = torch.zeros_like(p)
        momenta = [self.state[p]["exp_avg"] for p in parameters]
        if group["weight_decay"] != 0:
            scale = lr / (group["initial_lr"] or 1.0) if self.decay == "schedule" else lr  # a peak of 0 decays nothing
            torch._foreach_mul_(parameters, 1 - group["weight_decay"] * scale)
        directions = torch._foreach_mul(momenta, beta1)
        torch._foreach_add_(directions, gradients, alpha=1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_add_(parameters, directions, alpha=-lr)
        torch._foreach_mul_(momenta, beta2)
        torch._foreach_add_(momenta, gradients, alpha=1 - beta2)
