"""What one pass over the images shows of each: its size, its colours, a thumbnail."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.datasets import Dataset
from resnetkit.data.ingest import Ingested, ingest
from resnetkit.data.labels import sets
from resnetkit.data.preprocess import for_people, is_grey, resize

THUMBNAIL = 32  # pixels a side
ORDER = ("train", "all", "val", "test")


@dataclass(frozen=True)
class Portrait:
    """`side` is (height, width) in pixels. `mean` and `square` are those of the values and of their squares, in 0..1,
    by channel (C,), of grey as of rgb. `thumbnail` is uint8 (3, 32, 32), the whole image squashed, as people see it."""

    side: tuple[int, int]
    grey: bool
    mean: np.ndarray
    square: np.ndarray
    thumbnail: np.ndarray

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.side[1] / self.side[0]


@dataclass(frozen=True)
class Picture:
    """One readable image of a set: where it lies, its classes (one, unless images have several labels), its hash."""

    part: str
    name: str
    labels: tuple[int, ...]
    hash: str
    image: Any
    portrait: Portrait

    @property
    def bytes(self) -> int:
        """Encoded, where it is."""
        if isinstance(self.image, Tensor):
            return self.image.nbytes
        if isinstance(self.image, Path):
            return self.image.stat().st_size
        return len(self.image) if isinstance(self.image, bytes) else self.image.size


@dataclass(frozen=True)
class Survey:
    """A set and each of its readable images, the training images first. `unreadable` counts the others of its parts;
    `bad` names them, and what is of no part."""

    ingested: Ingested
    pictures: list[Picture]
    unreadable: int

    @property
    def dataset(self) -> Dataset:
        return self.ingested.dataset

    @property
    def bad(self) -> list[tuple[str, str]]:
        """The images that are left out, with the reasons."""
        return self.dataset.bad

    @property
    def total(self) -> int:
        return len(self.pictures) + len(self.bad)

    def count(self, part: str) -> list[int]:
        """Images of each class in a part."""
        counts = [0] * len(self.dataset.classes)
        for picture in self.pictures:
            for label in picture.labels if picture.part == part else ():
                counts[label] += 1
        return counts

    def class_of(self, picture: Picture) -> str:
        return ", ".join(self.dataset.classes[label] for label in picture.labels) or "no class"


def survey(dataset: Dataset) -> Survey:
    """Look at every image once. Unreadable ones are left out, however many. Raises ResnetkitError."""
    read = ingest(dataset, 1.0, measure=portrait)
    pictures = []
    for part in sorted(read.dataset.parts, key=ORDER.index):
        # The images as they are stored: small ones that `ingest` decoded for good have lost their files.
        stored = dict(zip(dataset.parts[part].names, dataset.parts[part].images))
        columns = zip(read.dataset.parts[part].names, sets(read.dataset.parts[part].labels), read.hashes[part])
        for (name, labels, digest), look in zip(columns, read.measured[part]):
            pictures.append(Picture(part, name, labels, digest, stored[name], look))
    return Survey(read, pictures, sum(map(len, dataset.parts.values())) - len(pictures))


def portrait(pixels: Tensor) -> Portrait:
    """uint8 (C, H, W) -> what is kept of it."""
    height, width = pixels.shape[1:]
    values = pixels.flatten(1).float().div_(255)  # of a large photo a copy is half a GiB
    shown = for_people(pixels)
    small = shown if (height, width) == (THUMBNAIL, THUMBNAIL) else resize(shown, [THUMBNAIL, THUMBNAIL])
    mean = values.mean(1)
    square = values.square_().mean(1)
    return Portrait(
        (height, width), is_grey(pixels), mean.double().numpy(), square.double().numpy(), small.numpy().copy()
    )


def thumbnails(pictures: list[Picture]) -> Tensor:
    """uint8 (N, 3, 32, 32)."""
    empty = np.empty((0, 3, THUMBNAIL, THUMBNAIL), np.uint8)
    return torch.from_numpy(np.stack([p.portrait.thumbnail for p in pictures]) if pictures else empty)
