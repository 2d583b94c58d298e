"""Our network as a functional Keras model of built-in layers, with the same numbers."""

import os
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from resnetkit.architecture import layers
from resnetkit.architecture.convolution import Conv2d
from resnetkit.architecture.resnet import Head, ResNet
from resnetkit.atomic import write_atomically
from resnetkit.errors import ResnetkitError
from resnetkit.weights.keras_match import FUNCTIONS, NORM_TENSORS
from resnetkit.weights.keras_tensors import to_keras_kernel
from resnetkit.weights.outline import Part, outline


def to_keras(net: ResNet, image_size: tuple[int, int] | None = None) -> Any:
    """A `keras.Model`: float (N, *image_size, channels) -> probabilities, or pooled features without a classifier.

    `image_size` is (height, width) [default: net.image_size]. Pixels are prepared as for `net`. Raises ResnetkitError
    for what Keras's layers cannot express, and where Keras is missing.
    """
    require_expressible(net)
    writer = _Writer(net)
    inputs = writer.keras.Input((*(image_size or net.image_size), net.spec.in_channels), name="images")
    plan = outline(net)
    x = writer.run(plan.stem, inputs)
    for block in plan.blocks:
        x = writer.run(block.before, x)
        y = writer.run(block.branch, x)
        if block.shortcut is not None:
            shortcut = writer.run(block.shortcut, x)
            y = writer.layers.Add(name=_flat(f"{block.name}.add"))([shortcut, y])
        x = writer.run(block.after, y)
    model = writer.keras.Model(inputs, writer.run(plan.head, x), name=_flat(net.spec.name))
    for name, values in writer.values.items():
        model.get_layer(name).set_weights(values)
    return model


def require_expressible(net: ResNet) -> None:
    """Raise ResnetkitError for what Keras's layers cannot express, and where Keras is missing; nothing is built."""
    _import_keras()
    if net.spec.reversible:
        raise ResnetkitError(f"{net.spec.name}: reversible=True: its blocks would be written as plain ones")
    plan = outline(net)
    blocks = chain.from_iterable((b.before, b.branch, b.shortcut or [], b.after) for b in plan.blocks)
    for name, module in chain(plan.stem, *blocks, plan.head):
        if type(module) not in WRITERS:
            raise ResnetkitError(f"{net.spec.name}: {name}: Keras has no layer for {type(module).__name__}")
        if type(module) is nn.AvgPool2d and module.stride != 2:  # `same` then pads before the map, too
            raise ResnetkitError(f"{net.spec.name}: {name}: Keras pads pools of stride {module.stride} otherwise")


def save_keras(net: ResNet, path: Path) -> None:
    """Write a `.keras` file that Keras opens with any back end, as `write_atomically` does.

    Raises ResnetkitError as `to_keras` does.
    """
    if path.suffix != ".keras":
        raise ResnetkitError(f"{path}: a file with a whole Keras model ends in .keras")
    write_atomically(path, partial(write_keras, to_keras(net)))


def write_keras(model: Any, path: Path) -> None:
    """Write a Keras model as a `.keras` file, whatever the path ends in."""
    with TemporaryDirectory(dir=path.parent) as folder:  # Keras looks at the file's ending
        whole = Path(folder, "model.keras")
        model.save(whole)
        whole.replace(path)


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _import_keras() -> Any:
    """Keras on the back end that the user chose, else on PyTorch: its own default, TensorFlow, is seldom there."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise ResnetkitError(f"Keras cannot be imported ({error}): pip install 'resnetkit[keras]'") from error
    return keras


class _Writer:
    """Applies our layers to Keras tensors; `values` are the arrays that each Keras layer is to get."""

    def __init__(self, net: ResNet) -> None:
        self.keras = _import_keras()
        self.layers: Any = self.keras.layers
        self.values: dict[str, list[Any]] = {}
        self._net = net

    def run(self, parts: list[Part], x: Any) -> Any:
        for name, module in parts:
            x = WRITERS[type(module)](self, _flat(name), module, x)
        return x

    def conv(self, name: str, module: nn.Conv2d, x: Any) -> Any:
        kernel, stride = module.kernel_size[0], module.stride[0]
        padding = "valid" if kernel == 1 else "same"
        if padding == "same" and stride > 1 and not isinstance(module, layers.SameConv2d):
            x = self.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
            padding = "valid"
        return self._conv(name, module, x, strides=stride, padding=padding)

    def _conv(self, name: str, module: nn.Conv2d, x: Any, **settings: Any) -> Any:
        biased = module.bias is not None
        self.values[name] = _kernel_and_bias(module)
        shape = {"filters": module.out_channels, "kernel_size": module.kernel_size, "groups": module.groups}
        settings |= {"dilation_rate": module.dilation, "use_bias": biased, "name": name}
        return self.layers.Conv2D(**shape, **settings)(x)

    def batch_norm(self, name: str, module: nn.BatchNorm2d, x: Any) -> Any:
        self.values[name] = [_array(module.state_dict()[ours]) for ours in NORM_TENSORS.values()]
        trained = not isinstance(module, layers.FrozenBatchNorm2d)
        momentum = 1 - (module.momentum or 0.0)
        make = self.layers.BatchNormalization
        return make(momentum=momentum, epsilon=module.eps, trainable=trained, name=name)(x)

    def group_norm(self, name: str, module: nn.GroupNorm, x: Any) -> Any:
        self.values[name] = [_array(module.weight), _array(module.bias)]
        return self.layers.GroupNormalization(module.num_groups, epsilon=module.eps, name=name)(x)

    def activation(self, name: str, module: nn.Module, x: Any) -> Any:
        return self.layers.Activation(FUNCTIONS[type(module)], name=name)(x)

    def pool(self, name: str, module: nn.MaxPool2d, x: Any) -> Any:
        """Zeros change no maximum after ReLU; elsewhere `same` at stride 1, whose every second place is the answer."""
        spec = self._net.spec
        if module.padding == 0:
            return self._max_pool(name, x, 3, 2, "valid")
        if spec.activation == "relu" and not spec.preactivation:
            return self.zeros_pool(name, module, x)
        return self._max_pool(name, self._max_pool(f"{name}_dense", x, 3, 1, "same"), 1, 2, "valid")

    def branch_pool(self, name: str, module: layers.BranchPool2d, x: Any) -> Any:
        return self._max_pool(name, x, module.side, module.side, "same")

    def same_pool(self, name: str, module: nn.Module, x: Any) -> Any:
        return self._max_pool(name, x, 3, 2, "same")

    def zeros_pool(self, name: str, module: nn.Module, x: Any) -> Any:
        return self._max_pool(name, self.layers.ZeroPadding2D(1, name=f"{name}_pad")(x), 3, 2, "valid")

    def _max_pool(self, name: str, x: Any, kernel: int, stride: int, padding: str) -> Any:
        return self.layers.MaxPooling2D(kernel, strides=stride, padding=padding, name=name)(x)

    def average_pool(self, name: str, module: nn.AvgPool2d, x: Any) -> Any:
        size, stride = module.kernel_size, module.stride
        return self.layers.AveragePooling2D(size, strides=stride, padding="same", name=name)(x)

    def zero_pad(self, name: str, module: layers.ZeroPadShortcut, x: Any) -> Any:
        if module.stride > 1:
            x = self._max_pool(f"{name}_subsample", x, 1, module.stride, "valid")
        if module.before + module.after:
            # The layer pads the last two axes of a map said to be (N, C, H, W): here width and channels.
            sides = ((0, 0), (module.before, module.after))
            x = self.layers.ZeroPadding2D(sides, data_format="channels_first", name=name)(x)
        return x

    def squeeze_excite(self, name: str, module: layers.SqueezeExcite, x: Any) -> Any:
        gates = self.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
        gates = self._conv(f"{name}_reduce", module.reduce, gates, activation="relu")
        gates = self._conv(f"{name}_expand", module.expand, gates, activation="sigmoid")
        return self.layers.Multiply(name=name)([x, gates])

    def channel_attention(self, name: str, module: layers.EfficientChannelAttention, x: Any) -> Any:
        channels, kernel = x.shape[-1], module.conv.kernel_size[0]
        gates = self.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
        gates = self.layers.Reshape((channels, 1), name=f"{name}_row")(gates)
        self.values[f"{name}_conv"] = _kernel_and_bias(module.conv)
        settings = {"padding": "same", "use_bias": False, "activation": "sigmoid", "name": f"{name}_conv"}
        gates = self.layers.Conv1D(1, kernel, **settings)(gates)
        gates = self.layers.Reshape((1, 1, channels), name=f"{name}_gates")(gates)
        return self.layers.Multiply(name=name)([x, gates])

    def drop_path(self, name: str, module: layers.DropPath, x: Any) -> Any:
        return self.layers.Dropout(module.rate, noise_shape=(None, 1, 1, 1), name=name)(x)

    def head(self, name: str, module: Head, x: Any) -> Any:
        return self.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)

    def classifier(self, name: str, module: nn.Linear, x: Any) -> Any:
        self.values[name] = _kernel_and_bias(module)
        return self.layers.Dense(module.out_features, activation="softmax", name=name)(x)


def _kernel_and_bias(module: nn.Conv1d | nn.Conv2d | nn.Linear) -> list[Any]:
    values = [to_keras_kernel(module.weight)]
    return values if module.bias is None else [*values, _array(module.bias)]


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().float().numpy()


Make = Callable[[_Writer, str, Any, Any], Any]
WRITERS: dict[type[nn.Module], Make] = {
    Conv2d: _Writer.conv,
    nn.Conv2d: _Writer.conv,
    layers.SameConv2d: _Writer.conv,
    nn.BatchNorm2d: _Writer.batch_norm,
    layers.FrozenBatchNorm2d: _Writer.batch_norm,
    nn.GroupNorm: _Writer.group_norm,
    **dict.fromkeys(FUNCTIONS, _Writer.activation),
    nn.MaxPool2d: _Writer.pool,
    layers.BranchPool2d: _Writer.branch_pool,
    layers.SameMaxPool2d: _Writer.same_pool,
    nn.Sequential: _Writer.zeros_pool,
    nn.AvgPool2d: _Writer.average_pool,
    layers.ZeroPadShortcut: _Writer.zero_pad,
    layers.SqueezeExcite: _Writer.squeeze_excite,
    layers.EfficientChannelAttention: _Writer.channel_attention,
    layers.DropPath: _Writer.drop_path,
    Head: _Writer.head,
    nn.Linear: _Writer.classifier,
}
