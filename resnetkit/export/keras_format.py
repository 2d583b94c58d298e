"""Keras: a `.keras` file of built-in layers, which Keras opens with any of its back ends."""

from dataclasses import replace
from pathlib import Path

from resnetkit.export.card import pixels_and_classes
from resnetkit.export.to_keras import require_expressible, to_keras, write_keras
from resnetkit.weights.files import Model
from resnetkit.weights.from_keras import read_keras
from resnetkit.weights.recognised import Recognised

SUFFIX = ".keras"


def require(model: Model) -> None:
    require_expressible(model.network)


def write(model: Model, path: Path) -> None:
    write_keras(to_keras(model.network, model.preprocessing.size), path)


def read(path: Path) -> Recognised:
    """Without the counters of batch norms, which Keras does not keep."""
    found = read_keras(path)
    kept = {name: value for name, value in found.tensors.items() if not name.endswith("num_batches_tracked")}
    return replace(found, tensors=kept)


def use(model: Model, path: str) -> list[str]:
    gives = "probabilities" if model.network.spec.num_classes else "pooled features"
    return ["import keras", f"model = keras.saving.load_model({path!r})  # images to {gives}"]


def notes(model: Model) -> list[str]:
    return pixels_and_classes(model)
