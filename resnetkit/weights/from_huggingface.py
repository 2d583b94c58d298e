"""Names of transformers' ResNetForImageClassification and ResNetBackbone (models/resnet/modeling_resnet.py)."""

from resnetkit.weights.rename import Table

LAYER = "encoder.stages.{stage}.layers.{block}."
TABLE = Table(
    "transformers",
    {
        "embedder.embedder.convolution": "stem.convs.conv1",
        "embedder.embedder.normalization": "stem.convs.norm1",
        LAYER + "layer.{i-1}.convolution": "stages.{stage}.{block}.branch.conv{i}",
        LAYER + "layer.{i-1}.normalization": "stages.{stage}.{block}.branch.norm{i}",
        LAYER + "shortcut.convolution": "stages.{stage}.{block}.shortcut.conv",
        LAYER + "shortcut.normalization": "stages.{stage}.{block}.shortcut.norm",
        "classifier.1": "head.classifier",
    },
    {"preactivation": False, "stem": "7x7", "shortcut": "projection", "attention": "none"},
)
TABLES = (TABLE,)
