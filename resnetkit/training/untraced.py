"""Optimizers that no compiler traces.

PyTorch's own keep its compiler from tracing into some of their methods, and import it to do so at the first call:
more than a second before the first step. Here networks are compiled block by block, optimizers never.
"""

from inspect import unwrap

import torch
from torch.optim import Optimizer


class Untraced(Optimizer):
    """An Optimizer without those guards, for one whose step has none."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class SGD(Untraced, torch.optim.SGD):
    """torch.optim.SGD."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class AdamW(Untraced, torch.optim.AdamW):
    """torch.optim.AdamW."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
