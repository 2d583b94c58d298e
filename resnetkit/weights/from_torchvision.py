"""torchvision's names, and those of CIFAR repositories that grew from them.

torchvision/models/resnet.py; github.com/akamaster/pytorch_resnet_cifar10 and github.com/kuangliu/pytorch-cifar
(`linear`, `shortcut`); github.com/xternalz/WideResNet-pytorch (`block1.layer.0`).
"""

from resnetkit.weights.rename import Table

BLOCKS = {
    "layer{stage+1}.{block}.conv{i}": "stages.{stage}.{block}.branch.conv{i}",
    "layer{stage+1}.{block}.bn{i}": "stages.{stage}.{block}.branch.norm{i}",
}
PROJECTION = {
    "layer{stage+1}.{block}.downsample.0": "stages.{stage}.{block}.shortcut.conv",
    "layer{stage+1}.{block}.downsample.1": "stages.{stage}.{block}.shortcut.norm",
}
STEM = {"conv1": "stem.convs.conv1", "bn1": "stem.convs.norm1"}
POST = {"preactivation": False}

TORCHVISION = Table(
    "torchvision",
    STEM | BLOCKS | PROJECTION | {"fc": "head.classifier"},
    POST,
)
CIFAR = Table(
    "a CIFAR repository",
    STEM
    | BLOCKS
    | {
        "layer{stage+1}.{block}.shortcut.0": "stages.{stage}.{block}.shortcut.conv",
        "layer{stage+1}.{block}.shortcut.1": "stages.{stage}.{block}.shortcut.norm",
        "linear": "head.classifier",
    },
    POST | {"stem": "3x3"},
)
WIDE_CIFAR = Table(
    "a WideResNet repository",
    {
        "conv1": "stem.convs.conv1",
        "block{stage+1}.layer.{block}.bn1": "stages.{stage}.{block}.preact.0",
        "block{stage+1}.layer.{block}.bn{i}": "stages.{stage}.{block}.branch.norm{i}",
        "block{stage+1}.layer.{block}.conv{i}": "stages.{stage}.{block}.branch.conv{i}",
        "block{stage+1}.layer.{block}.convShortcut": "stages.{stage}.{block}.shortcut.conv",
        "bn1": "norm.0",
        "fc": "head.classifier",
    },
    {"preactivation": True, "stem": "3x3"},
)
TABLES = (TORCHVISION, CIFAR, WIDE_CIFAR)
