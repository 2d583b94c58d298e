"""Keras files as networks of ours: the graph in the file is read, never run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.data.preprocess import PHOTO_SIZE, Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights.keras_config import Layer, layers_of
from resnetkit.weights.keras_file import KerasFile
from resnetkit.weights.keras_graph import Graph, graph_of
from resnetkit.weights.keras_match import Matcher
from resnetkit.weights.keras_operations import Operation, operations_of
from resnetkit.weights.keras_published import is_published, published_layers
from resnetkit.weights.keras_spec import infer
from resnetkit.weights.keras_tensors import KerasTensors
from resnetkit.weights.preprocessing import LARGEST_SIZE
from resnetkit.weights.recognised import Recognised

PIXEL_OPERATIONS = ("rescaling", "normalization")
USUAL_SIZE = (PHOTO_SIZE, PHOTO_SIZE)
# What h5py, and settings of the wrong type, raise where a file is not what a Keras of any version writes.
DAMAGE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def read_keras(path: str | Path) -> Recognised:
    """A `.h5`, `.keras` or `.weights.h5` file as a network of ours with its tensors.

    Raises ModelFileRefused, naming the layer and the feature, for a file that is damaged or no residual network of
    ours, and ResnetkitError where h5py is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileRefused(f"{path}: no such Keras file")
    try:
        with KerasFile(path) as file:
            return _read(file)
    except ModelFileRefused as error:
        raise ModelFileRefused(f"{path}: {error}") from error
    except ResnetkitError:
        raise
    except DAMAGE as error:
        raise ModelFileRefused(f"{path}: damaged: {' '.join(str(error).split())}") from error


def _read(file: KerasFile) -> Recognised:
    tensors = KerasTensors(file)
    layers = layers_of(file.config) if file.config is not None else published_layers(file)
    channels_first = _channels_first(layers)
    operations, notes = operations_of(layers)
    _check_axes(operations, channels_first)
    graph = graph_of(operations)
    pixels = [op for op in graph.stem if op.kind in PIXEL_OPERATIONS]
    stem = [op for op in graph.stem if op.kind not in PIXEL_OPERATIONS]
    if graph.stem[: len(pixels)] != pixels:
        raise pixels[-1].refuse("stands within the network; ours take pixels in order before their first layer")
    spec = infer(graph, stem, tensors)
    size = _image_size(graph, channels_first)
    with torch.device("meta"):
        net = ResNet(spec, size)
    matcher = Matcher(net, tensors)
    matcher.match(graph, stem)
    preprocessing = _preprocessing(pixels, spec, size, tensors)
    notes += matcher.notes + _filled(matcher.filled)
    if len(matcher.momenta) > 1:
        notes.append(f"norms differ in momentum ({sorted(matcher.momenta)}); {spec.norm_momentum:g} is taken for all")
    assumed = {}
    if file.config is None:
        assumed["graph"] = f"that of keras.applications' {spec.name}: the file holds weights alone, under its names"
    if size is None:
        assumed["size"] = "the file leaves the image size open"
    if preprocessing is None:
        assumed["preprocessing"] = _usual_pixels(layers)
    return Recognised(spec, matcher.tensors, "keras", (spec.name,), assumed, notes, preprocessing, size)


def _channels_first(layers: list[Layer]) -> bool:
    formats = {layer.config.get("data_format", "channels_last") for layer in layers if layer.kind == "Conv2D"}
    if len(formats) > 1:
        raise ModelFileRefused("convolutions with channels first and with channels last in one model")
    return formats == {"channels_first"}


def _check_axes(operations: list[Operation], channels_first: bool) -> None:
    for op in operations:
        if op.kind == "norm" and op.values["axis"] != (1 if channels_first else 3):
            raise op.refuse(f"axis {op.values['axis']} is not that of the channels")


def _image_size(graph: Graph, channels_first: bool) -> tuple[int, int] | None:
    shape = graph.entry.values["shape"][1:]
    height, width = shape[1:] if channels_first else shape[:2]
    for side in (height, width):
        if side is not None and not (type(side) is int and 0 < side <= LARGEST_SIZE):
            raise ModelFileRefused(
                f"images of {height!r} x {width!r} pixels; a side is a whole number to {LARGEST_SIZE}"
            )
    return (height, width) if height and width else None


def _preprocessing(
    pixels: list[Operation], spec: NetworkSpec, size: tuple[int, int] | None, tensors: KerasTensors
) -> Preprocessing | None:
    """Layers that scale 0..255, value * scale + offset, as our mean and deviation of 0..1."""
    if not pixels:
        return None
    if spec.in_channels not in (1, 3):
        raise pixels[0].refuse(f"scales {spec.in_channels} channels; pictures have 1 or 3")
    scale, offset = np.ones(spec.in_channels), np.zeros(spec.in_channels)
    for op in pixels:
        times, plus = _affine(op, tensors)
        scale, offset = scale * times, offset * times + plus
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (scale > 0).all()):
        raise pixels[-1].refuse("does not scale pixels by numbers above 0")
    std = 1 / (255 * scale)
    return Preprocessing(
        size=size or USUAL_SIZE,
        framing="squash",
        channels="rgb" if spec.in_channels == 3 else "grey",
        mean=tuple((-offset * std).tolist()),
        std=tuple(std.tolist()),
    )


def _affine(op: Operation, tensors: KerasTensors) -> tuple[Any, Any]:
    try:
        if op.kind == "rescaling":
            return np.asarray(op.values["scale"], float), np.asarray(op.values["offset"], float)
        values = op.values if op.values["mean"] is not None else tensors.of(op.layer)
        mean, variance = (np.asarray(values[name], float).reshape(-1) for name in ("mean", "variance"))
    except (TypeError, ValueError, KeyError) as error:
        raise op.refuse(f"its numbers are damaged: {error}") from error
    deviation = np.maximum(np.sqrt(variance), 1e-7)  # keras.backend.epsilon, below which Keras does not divide
    return 1 / deviation, -mean / deviation


def _filled(filled: dict[str, list[str]]) -> list[str]:
    values = {"bias": "a bias of zeros", "scale": "a scale of ones", "offset": "an offset of zeros"}
    return [
        f"{len(layers)} layers without one got {values[kind]}: {', '.join(layers[:3])}" + ", ..." * (len(layers) > 3)
        for kind, layers in filled.items()
        if layers
    ]


def _usual_pixels(layers: list[Layer]) -> str:
    version = is_published([layer.path[-1] for layer in layers])
    if version == 1:
        return "caffe: BGR less ImageNet's means, as keras.applications prepares pixels for these layer names"
    if version == 2:
        return "tf: -1..1, as keras.applications prepares pixels for these layer names"
    return "raw: RGB 0..255, as the file holds no layer that scales pixels"
