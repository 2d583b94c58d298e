"""timm's names: those of torchvision with deep stems, pooled shortcuts and attention, and the pre-activation family;
and the config.json of its Hub layout.

timm/models/resnet.py and resnetv2.py, version 1.0: norms of epsilon 1e-5, strides on the 3x3.
"""

import re
from itertools import product
from math import floor
from pathlib import Path
from typing import Any

from resnetkit.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, channels_of
from resnetkit.errors import ResnetkitError
from resnetkit.weights.from_torchvision import BLOCKS, POST, PROJECTION, STEM
from resnetkit.weights.preprocessing import CURE
from resnetkit.weights.rename import Table

DEEP_STEM = {
    "conv1.0": "stem.convs.conv1",
    "conv1.1": "stem.convs.norm1",
    "conv1.3": "stem.convs.conv2",
    "conv1.4": "stem.convs.norm2",
    "conv1.6": "stem.convs.conv3",
    "bn1": "stem.convs.norm3",
}
POOLED = {
    "layer{stage+1}.{block}.downsample.1": "stages.{stage}.{block}.shortcut.conv",
    "layer{stage+1}.{block}.downsample.2": "stages.{stage}.{block}.shortcut.norm",
}
ATTENTION = {
    "layer{stage+1}.{block}.se.fc1": "stages.{stage}.{block}.branch.attention.reduce",
    "layer{stage+1}.{block}.se.fc2": "stages.{stage}.{block}.branch.attention.expand",
    "layer{stage+1}.{block}.se.conv": "stages.{stage}.{block}.branch.attention.conv",
}
PREACT_STEMS = {
    "7x7": {"stem.conv": "stem.convs.conv1"},
    "deep": {"stem.conv{i}": "stem.convs.conv{i}", "stem.norm{i}": "stem.convs.norm{i}"},
}
PREACT = {
    "stages.{stage}.blocks.{block}.norm1": "stages.{stage}.{block}.preact.0",
    "stages.{stage}.blocks.{block}.norm{i}": "stages.{stage}.{block}.branch.norm{i}",
    "stages.{stage}.blocks.{block}.conv{i}": "stages.{stage}.{block}.branch.conv{i}",
    "stages.{stage}.blocks.{block}.downsample.conv": "stages.{stage}.{block}.shortcut.conv",
    "norm": "norm.0",
    "head.fc": "head.classifier",
}
BEYOND = {
    "maxpool.0": "a convolution in place of the stem's pool (ResNet-RS)",
    "maxpool.1": "anti-aliased pooling",
    "layer{stage+1}.{block}.aa": "anti-aliased strides",
}
TABLES = tuple(
    Table(
        "timm",
        stems | BLOCKS | shortcuts | ATTENTION | {"fc": "head.classifier"},
        POST | {"stem": stem, "shortcut": shortcut},
        beyond=BEYOND,
    )
    for (stem, stems), (shortcut, shortcuts) in product(
        (("7x7", STEM), ("deep", DEEP_STEM)), (("projection", PROJECTION), ("pooled", POOLED))
    )
) + tuple(
    Table(
        "timm",
        stems | PREACT,
        {"preactivation": True, "stem": stem, "shortcut_norm": False},
        {"shortcut": "pooled"} if stem == "deep" else {},
        pointwise=True,
    )
    for stem, stems in PREACT_STEMS.items()
)

SILENT = {  # architectures whose tensors are those of another network
    r"aa\d|blur": "anti-aliased strides",
    r"resnetv2_.*_bit": "weight standardisation (BiT)",
}
IN_TENSORS = {"layers", "channels", "stem_type", "stem_width", "stem_chs", "cardinality", "base_width", "block_args"}
UNDERSTOOD = IN_TENSORS | {"basic", "bottle_ratio", "avg_down", "act_layer", "output_stride", "global_pool"}
COUNTS = {"in_chans", "num_classes"}
TRAINING = {"drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}


def known(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json tells of a network beyond its tensors, in the words of NetworkSpec. Raises ResnetkitError for
    what ours cannot be."""
    architecture, given = str(config.get("architecture", "")), config.get("model_args") or {}
    for pattern, feature in SILENT.items():
        if re.search(pattern, architecture):
            raise ResnetkitError(f"{architecture} of timm has {feature}, which no network here has")
    if unknown := sorted(set(given) - UNDERSTOOD - COUNTS - TRAINING):
        raise ResnetkitError(f"{architecture} of timm with model_args {', '.join(unknown)} is not read")
    if (pool := given.get("global_pool", config.get("global_pool", "avg"))) != "avg":
        raise ResnetkitError(f"{architecture} of timm pools with {pool!r}; networks here take the mean")
    stride, stem = given.get("output_stride"), str(given.get("stem_type", ""))
    if "same" in stem:
        raise ResnetkitError(f"{architecture} of timm with stem_type {stem!r} pools in TensorFlow's way after it")
    told = {
        "strides": (1, 2, 2, 2),
        "stride_in_1x1": False,
        "activation": given.get("act_layer", "relu"),
        "padding": "symmetric",
        "pool_padding": "zeros" if "fixed" in stem else "lowest",
        "norm_eps": 1e-5,
        "output_stride": None if stride == 32 else stride,
    }
    if architecture.startswith("resnetv2"):  # names tell the shortcut of the others
        pooled = given.get("avg_down", bool(re.match(r"resnetv2_\d+[dt]", architecture)))
        told["shortcut"] = "pooled" if pooled else "projection"
    return told


def classes(config: dict[str, Any]) -> list[str] | None:
    """The labels of a config.json in the order of the outputs, where it has them."""
    names = config.get("label_names") or _pretrained(config).get("label_names") or config.get("labels")
    return [str(name) for name in names] if isinstance(names, list) else None


def preprocessing(config: dict[str, Any], folder: Path) -> Preprocessing | None:
    """What the config's pretrained_cfg says; None without one. Raises ResnetkitError for pixels that no Preprocessing
    makes."""
    record = _pretrained(config)
    if "input_size" not in record:
        return None
    try:
        return _preprocessing(record)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ResnetkitError(f"config.json of timm: {error}; {CURE}") from error


def _pretrained(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("pretrained_cfg") or config  # older files are flat


def _preprocessing(record: dict[str, Any]) -> Preprocessing:
    """timm/data/transforms_factory.py, transforms_imagenet_eval."""
    count, height, width = record["input_size"]
    share, mode = record.get("crop_pct") or 0.875, record.get("crop_mode", "center")
    resized = floor(height / share), floor(width / share)
    if mode == "center" and resized[0] == resized[1]:
        framing: dict[str, Any] = {"resize": resized[0]}
    elif mode == "squash" and resized == (height, width):
        framing = {"framing": "squash"}
    else:
        raise ResnetkitError(f"crop_mode {mode!r} of {height}x{width} at {share} is no framing here")
    return Preprocessing(
        size=(height, width),
        channels=channels_of(count),
        mean=tuple(record.get("mean", IMAGENET_MEAN)),
        std=tuple(record.get("std", IMAGENET_STD)),
        interpolation=record.get("interpolation", "bicubic"),
        **framing,
    )
