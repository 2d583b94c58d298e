"""Keras layers as the few operations that a residual network is made of; every other class is refused by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resnetkit.errors import ModelFileRefused
from resnetkit.weights.keras_config import Layer

# What these do in training alone is left to our own training.
TRAINING_ONLY = (
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "RandomContrast"),
    *("RandomBrightness", "RandomHeight", "RandomWidth"),
)
ACTIVATIONS = {"relu": "relu", "silu": "silu", "swish": "silu", "gelu": "gelu", "softmax": "softmax"}
GATES = ("sigmoid",)  # within attention alone


@dataclass(frozen=True)
class Operation:
    """`kind` says what it does; `values` are what matters of it; `layer` holds its tensors and its Keras name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    layer: Layer
    values: dict[str, Any] = field(default_factory=dict)

    def refuse(self, why: str) -> ModelFileRefused:
        return ModelFileRefused(f"layer {self.layer.name} ({self.layer.kind}): {why}")


def operations_of(layers: list[Layer]) -> tuple[list[Operation], list[str]]:
    """The operations in order, an activation inside a layer on its own, and a note for each kind of layer left out."""
    found: list[Operation] = []
    renamed: dict[str, str] = {}
    left_out: dict[str, None] = {}
    for layer in layers:
        inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        pieces = _pieces(layer)
        if not pieces:
            (renamed[layer.name],) = inputs
            left_out[layer.kind] = None
        for i, (kind, values) in enumerate(pieces):
            name = layer.name if i == len(pieces) - 1 else f"{layer.name}'s own {kind}"
            found.append(Operation(name, kind, inputs, layer, values))
            inputs = (name,)
    notes = [f"{kind} layers are left out: they do nothing at inference" for kind in left_out if kind in TRAINING_ONLY]
    return found, notes


def _pieces(layer: Layer) -> list[tuple[str, dict[str, Any]]]:
    if layer.kind in TRAINING_ONLY and not _is_drop_path(layer):
        return []
    if layer.kind not in READERS:
        raise ModelFileRefused(
            f"layer {layer.name}: a {layer.kind} is no part of the residual networks that resnetkit builds"
        )
    kind, read = READERS[layer.kind]
    try:
        values = read(layer)
        pieces = [(kind, values)] if kind != "activation" else []
        function = "relu" if layer.kind == "ReLU" else "softmax" if layer.kind == "Softmax" else None
        function = function or layer.config.get("activation")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileRefused(f"layer {layer.name} ({layer.kind}): its config is damaged: {error}") from error
    if function not in (None, "linear"):
        if not isinstance(function, str) or function not in (*ACTIVATIONS, *GATES):
            raise ModelFileRefused(f"layer {layer.name}: no activation of ours is Keras's {function!r}")
        pieces.append(("activation", {"function": ACTIVATIONS.get(function, function)}))
    return pieces


def _is_drop_path(layer: Layer) -> bool:
    return layer.kind == "Dropout" and (layer.config.get("noise_shape") or [])[1:] == [1, 1, 1]


def _unusual(layer: Layer, **usual: Any) -> None:
    """Refuse settings that ours do not have: each must be absent or as given."""
    for name, value in usual.items():
        if layer.config.get(name, value) != value:
            raise ModelFileRefused(f"layer {layer.name} ({layer.kind}): {name}={layer.config[name]!r} is none of ours")


def _square(layer: Layer, name: str, sides: int = 2) -> int:
    value = layer.config[name]
    value = [value] * sides if isinstance(value, int) else list(value)
    if len(set(value)) != 1 or not isinstance(value[0], int):
        raise ModelFileRefused(f"layer {layer.name} ({layer.kind}): {name}={value} is not square")
    return value[0]


def _nothing(layer: Layer) -> dict[str, Any]:
    return {}


def _input(layer: Layer) -> dict[str, Any]:
    shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
    if not shape or len(shape) != 4:
        raise ModelFileRefused(f"layer {layer.name}: an input of shape {shape}, not images (height, width, channels)")
    return {"shape": shape}


def _conv(layer: Layer) -> dict[str, Any]:
    sides = 1 if layer.kind == "Conv1D" else 2
    return {
        "kernel": _square(layer, "kernel_size", sides),
        "stride": _square(layer, "strides", sides),
        "dilation": _square(layer, "dilation_rate", sides),
        "groups": layer.config.get("groups", 1),
        "bias": layer.config["use_bias"],
        "padding": str(layer.config["padding"]).lower(),
    }


def _batch_norm(layer: Layer) -> dict[str, Any]:
    _unusual(layer, renorm=False, virtual_batch_size=None)
    return {
        "type": "batch",
        "axis": _axis(layer),
        "eps": float(layer.config["epsilon"]),
        "momentum": round(1 - float(layer.config["momentum"]), 12),  # 1 - 0.99 is 0.010000000000000009
        "scale": layer.config.get("scale", True),
        "center": layer.config.get("center", True),
        "trained": layer.config.get("trainable", True),
    }


def _group_norm(layer: Layer) -> dict[str, Any]:
    kept = {name: layer.config.get(name, True) for name in ("scale", "center")}
    eps, groups = float(layer.config["epsilon"]), layer.config["groups"]
    return {"type": "group", "axis": _axis(layer), "eps": eps, "groups": groups, **kept}


def _axis(layer: Layer) -> int:
    axis = layer.config.get("axis", -1)
    return int(axis[0] if isinstance(axis, list) else axis) % 4


def _zero_padding(layer: Layer) -> dict[str, Any]:
    (top, bottom), (left, right) = layer.config["padding"]
    return {"sides": (top, bottom, left, right), "data_format": layer.config.get("data_format")}


def _pool(layer: Layer) -> dict[str, Any]:
    values = {"kernel": _square(layer, "pool_size"), "padding": str(layer.config["padding"]).lower()}
    return values | {"stride": _square(layer, "strides") if layer.config.get("strides") else values["kernel"]}


def _dense(layer: Layer) -> dict[str, Any]:
    return {"bias": layer.config["use_bias"]}


def _relu(layer: Layer) -> dict[str, Any]:
    _unusual(layer, max_value=None, negative_slope=0.0, threshold=0.0)
    return {}


def _drop(layer: Layer) -> dict[str, Any]:
    return {"rate": float(layer.config["rate"])}


def _rescaling(layer: Layer) -> dict[str, Any]:
    return {"scale": layer.config["scale"], "offset": layer.config.get("offset", 0.0)}


def _normalization(layer: Layer) -> dict[str, Any]:
    _unusual(layer, invert=False)
    return {name: layer.config.get(name) for name in ("mean", "variance")}


READERS: dict[str, tuple[str, Callable[[Layer], dict[str, Any]]]] = {
    "InputLayer": ("input", _input),
    "Rescaling": ("rescaling", _rescaling),
    "Normalization": ("normalization", _normalization),
    "Conv2D": ("conv", _conv),
    "Conv1D": ("conv1d", _conv),
    "BatchNormalization": ("norm", _batch_norm),
    "GroupNormalization": ("norm", _group_norm),
    "Activation": ("activation", _nothing),
    "ReLU": ("activation", _relu),
    "Softmax": ("activation", _nothing),
    "Dropout": ("drop", _drop),
    "ZeroPadding2D": ("pad", _zero_padding),
    "MaxPooling2D": ("max_pool", _pool),
    "AveragePooling2D": ("average_pool", _pool),
    "GlobalAveragePooling2D": ("global_pool", _nothing),
    "Flatten": ("flatten", _nothing),
    "Reshape": ("reshape", _nothing),
    "Dense": ("dense", _dense),
    "Add": ("add", _nothing),
    "Multiply": ("multiply", _nothing),
}
