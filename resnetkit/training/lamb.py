"""LAMB: Adam's direction, each layer's step as long as its weights say (You et al. 2020, algorithm 2)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from resnetkit.training.untraced import Untraced

BETAS, EPSILON = (0.9, 0.999), 1e-6  # the paper's, section 4


class Lamb(Untraced):
    """With Adam's correction of both moments. A group without weight decay (norms, biases) takes Adam's own step, as in
    the training that made ResNet strikes back (Wightman et al. 2021)."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            if not learning:
                continue
            steps = self._adam(learning)
            if group["weight_decay"]:
                torch._foreach_add_(steps, learning, alpha=group["weight_decay"])
                torch._foreach_mul_(steps, _trust(learning, steps))
            torch._foreach_add_(learning, steps, alpha=-group["lr"])

    def _adam(self, parameters: list[Tensor]) -> list[Tensor]:
        """Adam's steps at a rate of 1."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            own = self.state[parameter]
            if not own:
                own["exp_avg"], own["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                own["step"] = torch.zeros(())
            own["step"] = own["step"].cpu() + 1  # a resume put it where the parameter is
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        counts = [self.state[p]["step"].item() for p in parameters]
        roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - BETAS[1] ** n for n in counts]))
        torch._foreach_add_(roots, EPSILON)
        return list(torch._foreach_div(torch._foreach_div(means, [1 - BETAS[0] ** n for n in counts]), roots))


def _trust(parameters: list[Tensor], steps: list[Tensor]) -> list[Tensor]:
    """The norm of each parameter over that of its step; 1 where either is 0."""
    ratios = torch._foreach_div(torch._foreach_norm(parameters), torch._foreach_norm(steps))
    return [torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0) for ratio in ratios]
