"""keras.applications' ResNets by their layer names: the graph for files that hold weights alone.

The names and the graph are those of keras/src/applications/resnet.py (Keras 3.15); its first version strides in a
block's first 1x1, its second in a stage's last block, where a max pool of kernel 1 is the shortcut.
"""

from typing import Any

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_config import Layer
from resnetkit.weights.keras_file import KerasFile

EPSILON, MOMENTUM = 1.001e-5, 0.99
DEPTHS = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
TOPS = ("predictions", "probs")  # today's name and that of the files from before Keras 2.3


def is_published(names: list[str]) -> int | None:
    """The version, 1 or 2, of the keras.applications ResNet whose layer names these are."""
    if not {"conv1_conv", "conv2_block1_1_conv"} <= set(names):
        return None
    return 2 if "post_bn" in names else 1


def published_layers(file: KerasFile) -> list[Layer]:
    """The layers of the keras.applications network whose weights these are. Raises ModelFileRefused."""
    names = file.weight_layers()
    version = is_published(names)
    depths = tuple(
        len({n for n in names if n.startswith(f"conv{s}_block") and n.endswith("_1_conv")}) for s in range(2, 6)
    )
    if version is None or depths not in DEPTHS:
        raise ModelFileRefused(
            "weights alone, without the graph, and not under keras.applications' names; save the whole model: "
            "model.save('model.keras')"
        )
    writer = _Writer()
    value = writer.input()
    value = writer.conv(value, "conv1", kernel=7, stride=2, pad=3)
    if version == 1:
        value = writer.norm_relu(value, "conv1_bn", "conv1_relu")
    value = writer.add("ZeroPadding2D", "pool1_pad", [value], padding=[[1, 1], [1, 1]])
    value = writer.add("MaxPooling2D", "pool1_pool", [value], pool_size=3, strides=2, padding="valid")
    for stage, depth in enumerate(depths, 2):
        for block in range(1, depth + 1):
            make = writer.block_v1 if version == 1 else writer.block_v2
            strided = block == 1 and stage > 2 if version == 1 else block == depth and stage < 5
            value = make(value, f"conv{stage}_block{block}", block == 1, 2 if strided else 1)
    if version == 2:
        value = writer.norm_relu(value, "post_bn", "post_relu")
    if top := next((name for name in TOPS if name in names), None):
        value = writer.add("GlobalAveragePooling2D", "avg_pool", [value])
        writer.add("Dense", top, [value], use_bias=True, activation="softmax")
    return writer.layers


class _Writer:
    """Each call adds layers that read `x` and returns the name of the last."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def add(self, kind: str, name: str, inputs: list[str], **config: Any) -> str:
        self.layers.append(Layer(name, kind, config, tuple(inputs), (name,), None))
        return name

    def input(self) -> str:
        return self.add("InputLayer", "input", [], batch_shape=[None, None, None, 3])

    def conv(self, x: str, name: str, *, kernel: int = 1, stride: int = 1, pad: int = 0, bias: bool = True) -> str:
        if pad:
            x = self.add("ZeroPadding2D", f"{name}_pad", [x], padding=[[pad, pad], [pad, pad]])
        padding = "same" if kernel == 3 and not pad else "valid"
        config = {"kernel_size": kernel, "strides": stride, "dilation_rate": 1, "use_bias": bias, "padding": padding}
        return self.add("Conv2D", f"{name}_conv", [x], **config)

    def norm(self, x: str, name: str) -> str:
        return self.add("BatchNormalization", name, [x], epsilon=EPSILON, momentum=MOMENTUM)

    def norm_relu(self, x: str, norm: str, relu: str) -> str:
        return self.add("Activation", relu, [self.norm(x, norm)], activation="relu")

    def block_v1(self, x: str, name: str, first: bool, stride: int) -> str:
        shortcut = x
        if first:
            shortcut = self.norm(self.conv(x, f"{name}_0", stride=stride), f"{name}_0_bn")
        y = self.norm_relu(self.conv(x, f"{name}_1", stride=stride), f"{name}_1_bn", f"{name}_1_relu")
        y = self.norm_relu(self.conv(y, f"{name}_2", kernel=3), f"{name}_2_bn", f"{name}_2_relu")
        y = self.norm(self.conv(y, f"{name}_3"), f"{name}_3_bn")
        total = self.add("Add", f"{name}_add", [shortcut, y])
        return self.add("Activation", f"{name}_out", [total], activation="relu")

    def block_v2(self, x: str, name: str, first: bool, stride: int) -> str:
        active = self.norm_relu(x, f"{name}_preact_bn", f"{name}_preact_relu")
        shortcut = x
        if first:
            shortcut = self.conv(active, f"{name}_0", stride=stride)
        elif stride > 1:
            shortcut = self.add("MaxPooling2D", f"{name}_pool", [x], pool_size=1, strides=stride, padding="valid")
        y = self.norm_relu(self.conv(active, f"{name}_1", bias=False), f"{name}_1_bn", f"{name}_1_relu")
        y = self.conv(y, f"{name}_2", kernel=3, stride=stride, pad=1, bias=False)
        y = self.norm_relu(y, f"{name}_2_bn", f"{name}_2_relu")
        return self.add("Add", f"{name}_out", [shortcut, self.conv(y, f"{name}_3")])
