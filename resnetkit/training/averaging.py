"""An exponential moving average of a network's weights and statistics."""

import torch
from torch import Tensor, nn


class Average:
    """Follows a network step by step; with decay 0 it is the network itself and costs nothing.

    The decay rises to its value as steps are taken, as TensorFlow's does with `num_updates`: of the weights that a run
    begins with nothing is left when the network has long left them.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        source = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
        self._source = list(source.values()) if decay else []
        self.values: dict[str, Tensor] = {name: value.clone() for name, value in source.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimizer's step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._source:
            torch._foreach_lerp_(list(self.values.values()), self._source, 1 - decay)
