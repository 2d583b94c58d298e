"""The pair that an experiment compares: a residual network and its plain twin, given as files or trained here."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.data.datasets import Dataset
from resnetkit.data.ingest import ingest
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.own_images import match_model
from resnetkit.lab.images import few_images, in_memory
from resnetkit.lab.runs import trained
from resnetkit.training.prepare import prepare
from resnetkit.training.recipe import make_recipe
from resnetkit.weights.files import Model

NAMES = {"residual": "resnet{}_cifar", "plain": "plain{}_cifar"}


def trained_twin(
    net: str, depth: int, data: str, images: int, epochs: int, seed: int, folder: Path, device: str
) -> Model:
    """The residual or plain network of a depth, trained on so many images in a run folder inside `folder`, both
    by the same recipe."""
    dataset = few_images(data, train=images, test=images)
    recipe = make_recipe(
        {
            "model": NAMES[net].format(depth),
            "epochs": epochs,
            "batch_size": 64,
            "lr": 0.1,
            "seed": seed,
            "schedule": "one_cycle",
            "crop_padding": 1,
            "flip": dataset.recipe != "digits",
        }
    )
    place = folder / "runs" / f"{net}{depth}-{seed}"
    return trained(place, prepare(dataset, recipe, {}, 0.0), device).model


def framed_images(model: Model, dataset: Dataset, part: str, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images of a part, uint8 (N, C, H, W) as the model frames them, and labels (N,) in its classes.

    Raises ResnetkitError for images that are not all of one small size.
    """
    few = dataset.parts[part].take(torch.arange(min(count, len(dataset.parts[part]))))
    one = match_model(replace(dataset, parts={part: few}), model)
    found = ingest(one, 0.0, model.preprocessing.channels).dataset.parts[part]
    return model.preprocessing.frame(in_memory(found, dataset.name)), found.labels


def require_kind(model: Model, source: str, *, plain: bool) -> ResNet:
    """The network. Raises ResnetkitError where it has shortcuts and should have none, or the other way about, and for
    a reversible one, whose blocks do not add up as others' do."""
    has_none = model.network.spec.shortcut == "none"
    if has_none != plain:
        wanted = "a network without shortcuts (plain...)" if plain else "a residual network"
        raise ResnetkitError(f"{source} is {model.network.spec.name}; give {wanted}")
    if model.network.spec.reversible:
        raise ResnetkitError(f"{source} is reversible, so its blocks have other paths; give a network that is not")
    return model.network
