"""The pair that an experiment compares: a residual network and its plain twin, given as files or trained here."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.data.ingest import ingest
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.own_images import match_model
from resnetkit.lab.images import few_images
from resnetkit.lab.runs import trained
from resnetkit.training.prepare import prepare
from resnetkit.training.recipe import Recipe
from resnetkit.weights.files import Model

NAMES = {"residual": "resnet{}_cifar", "plain": "plain{}_cifar"}


def trained_twin(
    net: str, depth: int, data: str, images: int, epochs: int, seed: int, folder: Path, device: str
) -> Model:
    """The residual or plain network of a depth, trained on so many images in a run folder inside `folder`, both
    by the same recipe."""
    dataset = few_images(data, train=images, test=images)
    recipe = Recipe(
        model=NAMES[net].format(depth),
        epochs=epochs,
        batch_size=64,
        lr=0.1,
        seed=seed,
        schedule="one_cycle",
        crop_padding=1,
        flip=dataset.recipe != "digits",
    )
    place = folder / "runs" / f"{net}{depth}-{seed}"
    return trained(place, prepare(dataset, recipe, {}, 0.0), device).model


def held_out_images(model: Model, data: str, images: int) -> tuple[Tensor, Tensor]:
    """uint8 (N, C, H, W) as the model frames them, and labels (N,): test images of `data`. Raises ResnetkitError."""
    dataset = few_images(data, train=1, test=images)
    one = replace(dataset, parts={"test": dataset.parts["test"]})
    part = ingest(match_model(one, model), 0.0, model.preprocessing.channels).dataset.parts["test"]
    if not isinstance(part.images, Tensor):
        raise ResnetkitError(f"{data}: the experiments need images of one small size, {model.preprocessing.size} here")
    return model.preprocessing.frame(part.images), part.labels


def require_kind(model: Model, source: str, *, plain: bool) -> ResNet:
    """The network. Raises ResnetkitError where it has shortcuts and should have none, or the other way about."""
    has_none = model.network.spec.shortcut == "none"
    if has_none != plain:
        wanted = "a network without shortcuts (plain...)" if plain else "a residual network"
        raise ResnetkitError(f"{source} is {model.network.spec.name}; give {wanted}")
    return model.network
