"""The images that a probe runs: a few of those of training, as evaluation and as training would show them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.data.augment import Augmentation, crop_and_flip, draws, random_resized_crop
from resnetkit.data.datasets import open_dataset
from resnetkit.data.encoded import Encoded
from resnetkit.data.image_files import images_below
from resnetkit.data.preprocess import BadImage, Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.own_images import match_classes

LEAST, GROUPS = 32, 4
SMALLEST_BOX = 0.08  # of a photo's area (Szegedy et al. 2015, section 6)
PADDING = 8  # the part of a small image's side that training pads it by: 4 of 32 pixels (He et al. 2015, section 4.2)


@dataclass(frozen=True)
class ProbeImages:
    """uint8 groups (n, C, H, W) as the network sees them, by view; the labels (N,) where their classes are the model's;
    and what they are, in words."""

    views: dict[str, list[Tensor]]
    labels: Tensor | None
    described: str


def read_images(data: str | Path, classes: list[str], preprocessing: Preprocessing, count: int) -> ProbeImages:
    """At most `count` images of `data`, drawn at random but always the same, in views `whole` and `cropped`: stored
    moments are those of augmented images.

    Raises ResnetkitError for fewer than LEAST that read.
    """
    images, labels, where = _open(data, classes)
    chosen, whole, cropped = [], [], []
    for i, picture in _decoded(images, preprocessing):
        chosen.append(i)
        whole.append(preprocessing.frame(picture))
        cropped.append(_cropped(picture, whole[-1], preprocessing, len(chosen)))
        if len(chosen) == count:
            break
    if len(chosen) < LEAST:
        raise ResnetkitError(f"{data}: {len(chosen)} readable images; a probe needs {LEAST}, better a few hundred")
    end = len(chosen) - len(chosen) % GROUPS
    views = {
        name: list(torch.stack(frames[:end]).chunk(GROUPS)) for name, frames in (("whole", whole), ("cropped", cropped))
    }
    named = None if labels is None else labels[torch.tensor(chosen[:end])]
    return ProbeImages(views, named, f"{end} images of {where}, {'without' if named is None else 'with'} labels")


def _open(data: str | Path, classes: list[str]) -> tuple[Tensor | Sequence[Encoded], Tensor | None, str]:
    try:
        dataset = open_dataset(data)
    except ResnetkitError:
        if not Path(data).is_dir() or not (paths := list(images_below(Path(data)))):
            raise
        return paths, None, str(data)
    name = next((name for name in ("train", "all") if name in dataset.parts), next(iter(dataset.parts)))
    known = not dataset.multilabel and set(dataset.classes) <= set(classes)
    part = (match_classes(dataset, classes) if known else dataset).parts[name]
    return part.images, part.labels if known else None, f"the {name} part of {data}"


def _decoded(images: Tensor | Sequence[Encoded], preprocessing: Preprocessing) -> Iterator[tuple[int, Tensor]]:
    for i in torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist():
        try:
            source = images[i].permute(1, 2, 0).squeeze(-1).numpy() if isinstance(images, Tensor) else images[i]
            yield i, preprocessing.decode(source)
        except BadImage:
            continue


def _cropped(picture: Tensor, whole: Tensor, preprocessing: Preprocessing, seed: int) -> Tensor:
    drawn = draws(seed, 0, 1)
    if preprocessing.framing == "squash":
        return crop_and_flip(whole[None], drawn, Augmentation(preprocessing.size[0] // PADDING, 1.0, True))[0]
    photo = Augmentation(0, SMALLEST_BOX, True)
    return random_resized_crop(picture, drawn[0].tolist(), size=preprocessing.size, augmentation=photo)
