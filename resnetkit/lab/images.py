"""What the experiments look at: a few images of a set, or noise."""

from dataclasses import replace
from functools import lru_cache

import torch

from resnetkit.data.augment import epoch_generator
from resnetkit.data.datasets import Dataset, Part, open_dataset, with_test
from resnetkit.errors import ResnetkitError

NOISE = "noise"
CLASSES = 10
SIDE = 32  # pixels, as CIFAR's


@lru_cache(maxsize=2)
def few_images(data: str, train: int, test: int, val: int = 0) -> Dataset:
    """At most so many images of each part, drawn alike on every machine; `noise` draws pixels from a normal
    distribution and labels at random. With `val`, a set without such a part has it cut from its training images.

    Raises ResnetkitError for images that may have several labels.
    """
    counts = {"train": train, "test": test} | ({"val": val} if val else {})
    if data == NOISE:
        return _noise(counts)
    dataset = with_test(open_dataset(data))
    if dataset.multilabel:
        raise ResnetkitError(f"{dataset.name}: the experiments need images of one label each")
    parts = dict(dataset.parts)
    parts.setdefault("test", parts.get("val", parts["train"]))
    order = torch.randperm(len(parts["train"]), generator=epoch_generator(0, 0, purpose=0))
    if "val" in counts and "val" not in dataset.parts:
        held = min(counts["val"], len(order) // 5)
        parts["val"], order = parts["train"].take(order[:held]), order[held:]
    chosen = {"train": parts["train"].take(order[: counts["train"]])}
    for name in counts.keys() - {"train"}:
        order = torch.randperm(len(parts[name]), generator=epoch_generator(0, 0, purpose=0))
        chosen[name] = parts[name].take(order[: counts[name]])
    return replace(dataset, parts=chosen)


def _noise(counts: dict[str, int]) -> Dataset:
    """Grey levels around the middle, six standard deviations from black to white."""
    generator = epoch_generator(0, 0, purpose=0)
    parts = {}
    for name, count in counts.items():
        values = torch.randn(count, 3, SIDE, SIDE, generator=generator) * (255 / 6) + 255 / 2
        labels = torch.randint(CLASSES, (count,), generator=generator)
        parts[name] = Part(values.round().clamp(0, 255).byte(), labels, [f"{name}/{i}" for i in range(count)])
    return Dataset(NOISE, [str(label) for label in range(CLASSES)], parts)
