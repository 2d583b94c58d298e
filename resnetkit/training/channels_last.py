"""Fused optimizers on a CPU copy every tensor that is not contiguous at every step. A channels_last one is, once its
dimensions are named in the order of its memory."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

IN_MEMORY, NAMED = (0, 2, 3, 1), (0, 3, 1, 2)


def step_in_memory_order(optimizer: Optimizer) -> Optimizer:
    """The same optimizer, which sees channels_last parameters as contiguous ones while it takes a step.

    Parameters, gradients and state have their own shapes before and after.
    """
    turned: list[Tensor] = []

    def before(optimizer: Optimizer, *_: Any) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        turned[:] = [p for p in parameters if p.ndim == 4 and not p.is_contiguous()]
        _turn(optimizer, turned, IN_MEMORY)

    def after(optimizer: Optimizer, *_: Any) -> None:
        _turn(optimizer, turned, NAMED)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return optimizer


def _turn(optimizer: Optimizer, parameters: Iterable[Tensor], order: tuple[int, ...]) -> None:
    for parameter in parameters:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        parameter.data = parameter.data.permute(order)
        parameter.grad = gradient.permute(order)
        own = optimizer.state[parameter]
        for name, value in own.items():
            if isinstance(value, torch.Tensor) and value.ndim == 4:
                own[name] = value.permute(order)
