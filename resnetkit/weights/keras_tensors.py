"""The tensors of Keras layers by what they are, and in PyTorch's layout."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_config import Layer
from resnetkit.weights.keras_file import KerasFile

AXES = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0)}  # Keras keeps the output channels last


class KerasTensors:
    """What a layer of the file holds, read when asked for."""

    def __init__(self, file: KerasFile) -> None:
        self._file = file
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, layer: Layer) -> dict[str, np.ndarray]:
        """By Keras's names: kernel, bias, gamma, beta, moving_mean, moving_variance. Raises ModelFileRefused."""
        if layer.name not in self._read:
            names = list(ROLES[layer.kind](layer.config))
            arrays = self._file.tensors(layer.path, layer.numbered)
            if len(arrays) != len(names):
                raise ModelFileRefused(f"layer {layer.name} ({layer.kind}): {len(arrays)} tensors, not {len(names)}")
            self._read[layer.name] = dict(zip(names, arrays))
        return self._read[layer.name]


def _kernel_and_bias(config: dict[str, Any]) -> list[str]:
    return ["kernel", "bias"] if config.get("use_bias", True) else ["kernel"]


def _affine(config: dict[str, Any]) -> list[str]:
    kept = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    return [name for name, present in kept.items() if present]


ROLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "Conv2D": _kernel_and_bias,
    "Conv1D": _kernel_and_bias,
    "Dense": _kernel_and_bias,
    "BatchNormalization": lambda config: [*_affine(config), "moving_mean", "moving_variance"],
    "GroupNormalization": _affine,
    "Normalization": lambda config: ["mean", "variance", "count"],
}


def to_torch(kernel: np.ndarray) -> Tensor:
    """A Keras kernel, output channels last, as PyTorch's weight, output channels first."""
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(AXES[kernel.ndim])))


def to_keras_kernel(weight: Tensor) -> np.ndarray:
    """The reverse of `to_torch`."""
    axes = AXES[weight.ndim]
    return np.ascontiguousarray(weight.detach().cpu().float().numpy().transpose(np.argsort(axes)))
