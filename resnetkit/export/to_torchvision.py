"""torchvision: a plain state dict in a .pth file, which its networks load as they are."""

from io import BytesIO
from pathlib import Path

import torch

from resnetkit.export.card import pixels_and_classes
from resnetkit.export.limits import in_their_names, is_dilated, refuse
from resnetkit.export.limits import require as require_limits
from resnetkit.weights.files import Model
from resnetkit.weights.from_torchvision import TORCHVISION
from resnetkit.weights.recognise import recognise
from resnetkit.weights.recognised import Recognised

LIMITS = {  # torchvision/models/resnet.py
    "stem": ("7x7",),
    "stem_width": (64,),
    "in_channels": (3,),
    "widths": ((64, 128, 256, 512),),
    "strides": ((1, 2, 2, 2),),
    "preactivation": (False,),
    "shortcut": ("projection",),
    "shortcut_norm": (True,),
    "activation": ("relu",),
    "attention": ("none",),
    "stride_in_1x1": (False,),
}
SUFFIX = ".pth"
NAMES: dict[tuple[str, tuple[int, ...], int, int], str] = {  # block, depths, cardinality, base width
    ("basic", (2, 2, 2, 2), 1, 64): "resnet18",
    ("basic", (3, 4, 6, 3), 1, 64): "resnet34",
    ("bottleneck", (3, 4, 6, 3), 1, 64): "resnet50",
    ("bottleneck", (3, 4, 23, 3), 1, 64): "resnet101",
    ("bottleneck", (3, 8, 36, 3), 1, 64): "resnet152",
    ("bottleneck", (3, 4, 6, 3), 32, 4): "resnext50_32x4d",
    ("bottleneck", (3, 4, 23, 3), 32, 8): "resnext101_32x8d",
    ("bottleneck", (3, 4, 23, 3), 64, 4): "resnext101_64x4d",
    ("bottleneck", (3, 4, 6, 3), 1, 128): "wide_resnet50_2",
    ("bottleneck", (3, 4, 23, 3), 1, 128): "wide_resnet101_2",
}


def require(model: Model) -> None:
    spec = model.network.spec
    require_limits(spec, "torchvision", LIMITS)
    if not spec.num_classes:
        refuse(spec, "torchvision", "num_classes", "its networks have a classifier")
    if is_dilated(spec) and spec.block == "basic":
        refuse(spec, "torchvision", "output_stride", "its basic block has no dilation")


def write(model: Model, path: Path) -> None:
    file = BytesIO()  # for torch tells of a full disk in its own words
    torch.save(in_their_names((TORCHVISION,), model.network), file)
    path.write_bytes(file.getbuffer())


def read(path: Path) -> Recognised:
    return recognise(torch.load(path, map_location="cpu", weights_only=True))


def use(model: Model, path: str) -> list[str]:
    return [
        "import torch, torchvision",
        f"net = torchvision.models.{builder(model)}",
        f"net.load_state_dict(torch.load({path!r}, weights_only=True))",
    ]


def builder(model: Model) -> str:
    """The call that builds the network: by name where torchvision has one, else from its depths."""
    spec = model.network.spec
    options = {"num_classes": spec.num_classes}
    name = NAMES.get((spec.block, spec.depths, spec.cardinality, spec.base_width))
    dilated = f", replace_stride_with_dilation={_dilated(model)}" if is_dilated(spec) else ""
    if name is None:
        options |= {"groups": spec.cardinality, "width_per_group": spec.base_width}
        block = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}[spec.block]
        name, depths = "resnet.ResNet", f"torchvision.models.resnet.{block}, {list(spec.depths)}, "
    else:
        depths = ""
    return f"{name}({depths}{', '.join(f'{key}={value}' for key, value in options.items())}{dilated})"


def _dilated(model: Model) -> list[bool]:
    """By stage after the first: whether its stride has become dilation."""
    first = [row for row in model.network.rows if row.block == 0 and row.stage > 0]
    return [row.stride < model.network.spec.strides[row.stage] for row in first]


def notes(model: Model) -> list[str]:
    return pixels_and_classes(model)
