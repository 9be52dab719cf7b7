"""LAMB, the optimiser of fine-tuning, so that a GPU can take its step without waiting for Python."""

from __future__ import annotations

import math
from typing import Any

import torch

BETAS, EPSILON = (0.9, 0.999), 1e-6


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al., 2020): Adam's direction, by a share of the norm of what it changes, the learning rate.

    Parameters without weight decay, too, change by a share of their norm: biases of a network are small. All of a
    group's parameters take a step at once. Learning rate and number of steps are tensors on the parameters' device, so
    that a recorded step reads them anew at each replay.

    Args:
        groups: of parameters, as for every optimiser of PyTorch.
        lr: the learning rate.
        weight_decay: as a share of the parameters, added to Adam's direction.
    """

    def __init__(self, groups: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            device = group["params"][0].device
            group["lr"] = torch.tensor(float(group["lr"]), device=device)
            group["step"] = torch.tensor(0.0, device=device)
            for parameter in group["params"]:
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] += 1
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            first, second = (
                [self.state[parameter][kind] for parameter in parameters] for kind in ("exp_avg", "exp_avg_sq")
            )
            # One minus a power of beta, exact in float32 as well.
            unbiased = [-torch.expm1(math.log(beta) * group["step"]) for beta in BETAS]
            torch._foreach_lerp_(first, gradients, 1 - BETAS[0])
            torch._foreach_mul_(second, BETAS[1])
            torch._foreach_addcmul_(second, gradients, gradients, 1 - BETAS[1])
            divisors = torch._foreach_div(torch._foreach_sqrt(second), unbiased[1].sqrt())
            torch._foreach_add_(divisors, EPSILON)
            directions = torch._foreach_div(first, unbiased[0])
            torch._foreach_div_(directions, divisors)
            if group["weight_decay"]:
                torch._foreach_add_(directions, parameters, alpha=group["weight_decay"])
            norms, lengths = (torch.stack(torch._foreach_norm(values)) for values in (parameters, directions))
            shares = torch.where((norms > 0) & (lengths > 0), norms / lengths, torch.ones_like(norms))
            torch._foreach_mul_(directions, list((-group["lr"] * shares).unbind()))
            torch._foreach_add_(parameters, directions)
