"""Golden numbers of every variant: `python tests/golden/family.py` writes family.json, which tests and docs read.

Parameters, MACs, receptive field and feature shapes at the native size, and a checksum of the logits of a network
whose every tensor is filled by a formula, so that a moved stride or a misplaced channel shows.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.summary import complexity
from resnetkit.architecture.variants import spec, variants

FILE = Path(__file__).with_name("family.json")
NAMES = variants()


def wave(count: int, phase: float) -> torch.Tensor:
    """`count` numbers in -1..1 that repeat nowhere and need no generator."""
    return torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + phase)


@torch.no_grad()
def fill(net: ResNet) -> ResNet:
    """Every tensor from its place in the state dict; the scale keeps deep networks in range."""
    for i, (name, tensor) in enumerate(net.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        values = wave(tensor.numel(), i).reshape(tensor.shape)
        if name.endswith("running_var"):
            values = 1 + 0.5 * values
        elif tensor.ndim > 1:
            values = values * math.sqrt(2 / tensor[0].numel())
        elif name.endswith("weight"):
            values = 0.3 + 0.1 * values
        else:
            values = 0.1 * values
        tensor.copy_(values)
    return net


@torch.inference_mode()
def checksum(net: ResNet) -> list[float]:
    """Mean, spread and first logits of a filled network in float64 on two small images."""
    side = 12 if net.spec.stem == "3x3" else 32  # even by odd, which TensorFlow pads differently
    x = wave(2 * net.spec.in_channels * side * (side + 3), 0.5).reshape(2, net.spec.in_channels, side, side + 3)
    logits = fill(net.double().eval())(x)
    return [float(logits.mean()), float(logits.std()), *logits[0, :3].tolist()]


def measure(name: str) -> dict[str, Any]:
    net = ResNet(spec(name, 10 if "notebook" in name else None))
    facts = complexity(net)
    with torch.device("meta"):
        twin = ResNet(net.spec).eval()
        maps = twin.features(torch.empty(1, net.spec.in_channels, *net.image_size))
    kept = ("parameters", "macs", "activation_bytes", "receptive_field", "output_stride")
    return {key: facts[key] for key in kept} | {
        "features": [list(x.shape[1:]) for x in maps],
        "checksum": checksum(net),
    }


if __name__ == "__main__":
    FILE.write_text("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(measure(n))}" for n in NAMES) + "\n}\n")
