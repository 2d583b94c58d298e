"""What the experiments look at: a few images of a set, or noise."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from resnetkit.data.augment import epoch_generator
from resnetkit.data.datasets import Dataset, Part, open_dataset, with_test
from resnetkit.data.ingest import SMALL
from resnetkit.errors import ResnetkitError

NOISE = "noise"
CLASSES = 10
EVERY_CLASS = 64  # images of noise, among so many none is missing
SIDE = 32  # pixels, as CIFAR's


@lru_cache(maxsize=2)
def few_images(data: str, train: int, test: int) -> Dataset:
    """At most so many training and test images, drawn alike on every machine, but one of each class to train on;
    `noise` draws pixels from a normal distribution and labels at random. A set with no test part is tested on its val
    part.

    Raises ResnetkitError for images that may have several labels.
    """
    counts = {"train": train, "test": test}
    if data == NOISE:
        return _noise({"train": max(train, EVERY_CLASS), "test": test})
    dataset = with_test(open_dataset(data))
    if dataset.multilabel:
        raise ResnetkitError(f"{dataset.name}: the experiments need images of one label each")
    counts["train"] = max(train, len(dataset.classes))
    parts = {"train": dataset.parts["train"], "test": dataset.parts.get("test", dataset.parts.get("val"))}
    chosen = {name: part.take(_order(part.labels)[: counts[name]]) for name, part in parts.items() if part is not None}
    return replace(dataset, parts=chosen)


def guessing_loss(labels: Tensor) -> float:
    """The loss of one who knows nothing but how often each label comes: their entropy, ln(10) of ten classes alike."""
    shares = labels.bincount().double() / len(labels)
    return float(torch.special.entr(shares).sum())


def in_memory(part: Part, name: str) -> Tensor:
    """The images of a part that is ingested, uint8 (N, C, H, W). Raises ResnetkitError, which names the set, for photos
    and for images of several sizes."""
    if not isinstance(part.images, Tensor):
        raise ResnetkitError(f"{name}: the experiments need images of one size, {SMALL} pixels a side at most")
    return part.images


def _order(labels: Tensor) -> Tensor:
    """At random, but one of each class first, so that none is missing among the first few."""
    order = torch.randperm(len(labels), generator=epoch_generator(0, 0, purpose=0))
    first = torch.tensor([int((labels[order] == label).nonzero()[0]) for label in labels.unique()])
    rest = torch.ones(len(order), dtype=torch.bool).index_fill(0, first, False)
    return torch.cat([order[first], order[rest]])


def _noise(counts: dict[str, int]) -> Dataset:
    """Grey levels around the middle, six standard deviations from black to white."""
    generator = epoch_generator(0, 0, purpose=0)
    parts = {}
    for name, count in counts.items():
        values = torch.randn(count, 3, SIDE, SIDE, generator=generator) * (255 / 6) + 255 / 2
        labels = torch.randint(CLASSES, (count,), generator=generator)
        parts[name] = Part(values.round().clamp(0, 255).byte(), labels, [f"{name}/{i}" for i in range(count)])
    return Dataset(NOISE, [str(label) for label in range(CLASSES)], parts)
