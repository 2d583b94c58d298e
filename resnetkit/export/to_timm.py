"""timm: the Hub layout that `timm.create_model("hf-hub:OWNER/NAME")` and `("local-dir:FOLDER")` open."""

from math import floor
from pathlib import Path
from typing import Any

from resnetkit.architecture.spec import EXPANSION, NetworkSpec
from resnetkit.architecture.variants import spec as named_spec
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.export.card import card, describe_pixels, uncalibrated
from resnetkit.export.hub import read_folder, write_folder
from resnetkit.export.limits import in_their_names, is_dilated, refuse
from resnetkit.export.limits import require as require_limits
from resnetkit.weights.files import Model
from resnetkit.weights.from_timm import TABLES, known
from resnetkit.weights.recognise import recognise
from resnetkit.weights.recognised import Recognised

LIMITS = {  # timm/models/resnet.py and resnetv2.py, version 1.0
    "stem": ("7x7", "deep"),
    "strides": ((1, 2, 2, 2),),
    "shortcut": ("projection", "pooled"),
    "stride_in_1x1": (False,),
}
POST = {"shortcut_norm": (True,)}
PREACT = {"shortcut_norm": (False,), "attention": ("none",), "cardinality": (1,), "base_width": (64,)}
STRIDES = (8, 16, 32)
ARCHITECTURES = {  # ours: theirs, where the names are not the same
    "preact_resnet18": "resnetv2_18",
    "preact_resnet34": "resnetv2_34",
    "preact_resnet50": "resnetv2_50",
    "preact_resnet101": "resnetv2_101",
    "preact_resnet152": "resnetv2_152",
}
SAME_NAME = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"),
    *("resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnet152d", "resnet200d"),
    *("resnet50c", "resnet101c", "resnet152c", "resnet50s", "resnet101s", "resnet152s"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("seresnet50", "ecaresnet50d"),
)
SUFFIX = ""
PIXEL_NOTES = ("timm's transform neither turns images by their EXIF orientation nor puts transparent ones on white",)


def require(model: Model) -> None:
    spec = model.network.spec
    require_limits(spec, "timm", LIMITS | (PREACT if spec.preactivation else POST))
    if is_dilated(spec) and (spec.output_stride not in STRIDES or spec.shortcut == "pooled"):
        refuse(spec, "timm", "output_stride", "its networks have 8, 16 or 32, and pool otherwise at a dilation")
    if spec.stem == "7x7" and not spec.preactivation and spec.stem_width != 64:
        refuse(spec, "timm", "stem_width", "its 7x7 stem has 64")
    if spec.stem == "deep" and not spec.preactivation and spec.stem_width % 2:
        refuse(spec, "timm", "stem_width", "its deep stem begins with the half of it")
    if spec.preactivation:
        _require_preact(model)
    framing(model.preprocessing)


def _require_preact(model: Model) -> None:
    spec = model.network.spec
    if any(width % 8 for width in (*spec.widths, spec.stem_width)):
        refuse(spec, "timm", "widths", "it rounds the widths of pre-activation networks to 8")
    first = [row for row in model.network.rows if row.block == 0 and row.shortcut == "identity"]
    if spec.block == "bottleneck" and first:
        refuse(spec, "timm", "widths", "its pre-activation stages of bottlenecks begin with a projection")
    if any(row.dilation > row.entry_dilation for row in first):
        refuse(spec, "timm", "output_stride", "its pre-activation stages that dilate begin with a projection")


def framing(pixels: Preprocessing) -> dict[str, Any]:
    """timm's words for it. Raises ResnetkitError where there are none."""
    height, width = pixels.size
    if pixels.framing == "squash":
        return {"crop_mode": "squash", "crop_pct": 1.0}
    if pixels.framing == "crop" and pixels.resize is not None and height == width:
        exact = height / pixels.resize
        share = exact if floor(height / exact) == pixels.resize else height / (pixels.resize + 0.5)
        return {"crop_mode": "center", "crop_pct": share}
    raise ResnetkitError(
        f"timm cannot hold framing={pixels.framing!r} of {height}x{width}: it crops squares, squashes, or pads with "
        "the mean; --to torchvision writes the tensors alone"
    )


def architecture(spec: NetworkSpec) -> tuple[str, dict[str, Any]]:
    """The architecture's name and the model_args by which the network differs from it."""
    name = spec.name
    if name not in (*SAME_NAME, *ARCHITECTURES) or named_spec(name).block != spec.block:
        name = ("preact_" if spec.preactivation else "") + {"basic": "resnet18", "bottleneck": "resnet50"}[spec.block]
    usual = _arguments(named_spec(name))
    differ = {key: value for key, value in _arguments(spec).items() if value != usual[key]}
    return ARCHITECTURES.get(name, name), differ


def _arguments(spec: NetworkSpec) -> dict[str, Any]:
    deep = spec.stem == "deep"
    arguments = {
        "layers": spec.depths,
        "stem_type": "deep" if deep else "",
        "avg_down": spec.shortcut == "pooled",
        "act_layer": spec.activation,
        "output_stride": spec.output_stride or 32,
    }
    if spec.preactivation:
        channels = tuple(width * EXPANSION[spec.block] for width in spec.widths)
        return arguments | {"channels": channels, "stem_chs": spec.stem_width}
    return arguments | {
        "channels": spec.widths,
        "stem_width": spec.stem_width // 2 if deep else 64,
        "cardinality": spec.cardinality,
        "base_width": spec.base_width,
        "block_args": {} if spec.attention == "none" else {"attn_layer": spec.attention},
    }


def write(model: Model, folder: Path) -> None:
    spec, pixels = model.network.spec, model.preprocessing
    name, differ = architecture(spec)
    config = {
        "architecture": name,
        "num_classes": spec.num_classes,
        "num_features": model.network.rows[-1].out_channels,
        "label_names": model.classes,
        "model_args": differ,
        "pretrained_cfg": {
            "num_classes": spec.num_classes,
            "input_size": [spec.in_channels, *pixels.size],
            "fixed_input_size": False,
            "interpolation": pixels.interpolation,
            **framing(pixels),
            "mean": pixels.mean,
            "std": pixels.std,
            "first_conv": _first_conv(spec),
            "classifier": "head.fc" if spec.preactivation else "fc",
        },
    }
    how = use(model, "FOLDER") + ["# on the Hub: timm.create_model('hf-hub:OWNER/NAME', pretrained=True)"]
    text = card(model, library="timm", use=how, notes=notes(model))
    write_folder(folder, in_their_names(TABLES, model.network), text, config)


def _first_conv(spec: NetworkSpec) -> str:
    if spec.preactivation:
        return "stem.conv1" if spec.stem == "deep" else "stem.conv"
    return "conv1.0" if spec.stem == "deep" else "conv1"


def read(folder: Path) -> Recognised:
    tensors, config = read_folder(folder)
    return recognise(tensors, known(config))


def use(model: Model, path: str) -> list[str]:
    return [
        "import timm",
        f"net = timm.create_model({f'local-dir:{path}'!r}, pretrained=True).eval()",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)",
    ]


def notes(model: Model) -> list[str]:
    grey = ["open images with .convert('L')"] if model.preprocessing.channels == "grey" else []
    return [f"pixels: {describe_pixels(model.preprocessing)}", *PIXEL_NOTES, *grey, *uncalibrated(model)]
