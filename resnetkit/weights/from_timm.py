"""timm's names: those of torchvision with deep stems, pooled shortcuts and attention, and the pre-activation family.

timm/models/resnet.py and resnetv2.py, version 1.0.
"""

from itertools import product

from resnetkit.weights.from_torchvision import BLOCKS, POST, STEM
from resnetkit.weights.rename import Table

DEEP_STEM = {
    "conv1.0": "stem.convs.conv1",
    "conv1.1": "stem.convs.norm1",
    "conv1.3": "stem.convs.conv2",
    "conv1.4": "stem.convs.norm2",
    "conv1.6": "stem.convs.conv3",
    "bn1": "stem.convs.norm3",
}
PROJECTION = {
    "layer{stage+1}.{block}.downsample.0": "stages.{stage}.{block}.shortcut.conv",
    "layer{stage+1}.{block}.downsample.1": "stages.{stage}.{block}.shortcut.norm",
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
    Table("timm", stems | PREACT, {"preactivation": True, "stem": stem, "shortcut_norm": False}, pointwise=True)
    for stem, stems in PREACT_STEMS.items()
)
