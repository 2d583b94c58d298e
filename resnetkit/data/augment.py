"""Training-time changes of images. Every draw is a function of (seed, epoch, sample), so that a resume is exact."""

from collections.abc import Sequence
from math import isqrt
from random import Random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resnetkit.data.guard import MAX_PIXELS
from resnetkit.data.policies import apply_policy, box_of_noise, erase
from resnetkit.data.preprocess import letterbox, resize

LARGEST_SQUARE = isqrt(MAX_PIXELS)  # a longer side is shrunk to it: the square of a strip would take gigabytes
DRAWS = 6  # uniform numbers a sample: flip, what a crop needs, the seed of what follows


class Augmentation(NamedTuple):
    """`crop_padding` pixels around small images before a random crop, zeros or, by `padding_mode` "reflect", the image
    mirrored at its rims; photos are cropped to a random share of their area, `min_scale` at least. `flip`: left to
    right, every other epoch. `policy` is one of data.policies, or none, `policy_level` the strength of `rand`;
    `erasing` the share of images that lose a box."""

    crop_padding: int
    min_scale: float
    flip: bool
    policy: str = "none"
    erasing: float = 0.0
    policy_level: int = 9
    padding_mode: str = "zeros"


def epoch_generator(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """A generator of its own for each (seed, epoch, purpose)."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + epoch) * 8 + purpose)
    return generator


def draws(seed: int, epoch: int, samples: int) -> Tensor:
    """Uniform numbers (samples, DRAWS) in [0, 1). The first decides on the flip: drawn once, it moves by a half from
    epoch to epoch, so that two epochs show each image both ways (alternating flip, Jordan 2024, section 3.6)."""
    drawn = torch.rand(samples, DRAWS, generator=epoch_generator(seed, epoch, purpose=1))
    first = torch.rand(samples, generator=epoch_generator(seed, 0, purpose=3))
    drawn[:, 0] = (first + epoch % 2 / 2) % 1
    return drawn


def crop_and_flip(images: Tensor, drawn: Tensor, augmentation: Augmentation) -> Tensor:
    """uint8 (N, C, H, W) with draws (N, DRAWS) on its device -> the same shape, each image shifted and flipped by its
    own draws."""
    if not augmentation.crop_padding and not augmentation.flip:
        return images
    count, _, height, width = images.shape
    padding = augmentation.crop_padding
    shift = (drawn[:, 1:3] * (2 * padding + 1)).long()
    rows = shift[:, :1] + torch.arange(height, device=images.device)
    columns = shift[:, 1:] + torch.arange(width, device=images.device)
    if augmentation.flip:
        columns = torch.where(drawn[:, :1] < 0.5, columns.flip(1), columns)
    if augmentation.padding_mode == "reflect":
        rows, columns = _reflected(rows - padding, height), _reflected(columns - padding, width)
    else:
        images = F.pad(images, (padding,) * 4)
    sample = torch.arange(count, device=images.device)[:, None, None]
    # (N, H, W, C) from the index, which is channels_last for the network.
    return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(places: Tensor, side: int) -> Tensor:
    """Indices, also negative or past `side`, as those of the image reflected about its outermost pixels: `F.pad` does
    so for floats alone, and for less than the image."""
    period = max(1, 2 * (side - 1))
    folded = places % period
    return torch.minimum(folded, period - folded)


def random_resized_crop(
    image: Tensor, drawn: Sequence[float], *, size: tuple[int, int], augmentation: Augmentation, framing: str = "crop"
) -> Tensor:
    """uint8 (C, H, W) of any size -> (C, *size) from a random box of `min_scale` to all of the area and an aspect
    ratio of 3/4 to 4/3 (Szegedy et al. 2015, section 6), flipped by the draws too.

    The box is of the picture as `framing` shows it: padded to a square by `letterbox`; stretched by `squash`.
    """
    if framing == "letterbox":
        image = letterbox(image, (min(max(image.shape[1:]), LARGEST_SQUARE),) * 2)
    top, left, height, width = _random_box(image.shape[1], image.shape[2], drawn, augmentation, framing)
    box = resize(image[:, top : top + height, left : left + width], list(size))
    return box.flip(2) if augmentation.flip and drawn[0] < 0.5 else box


def spare(
    height: int,
    width: int,
    drawn: Sequence[float],
    *,
    size: tuple[int, int],
    augmentation: Augmentation,
    framing: str = "crop",
) -> int:
    """By what whole factor a picture (height, width) may be smaller, for the box of its draws still to cover `size`."""
    if framing == "letterbox":
        height = width = max(height, width)
    _, _, box_height, box_width = _random_box(height, width, drawn, augmentation, framing)
    return max(1, min(box_height // size[0], box_width // size[1]))


def _random_box(
    height: int, width: int, drawn: Sequence[float], augmentation: Augmentation, framing: str
) -> tuple[int, int, int, int]:
    """(top, left, height, width)."""
    area, ratio, y, x = drawn[1:5]
    stretch = width / height if framing == "squash" else 1.0
    scale = augmentation.min_scale + area * (1 - augmentation.min_scale)
    aspect = stretch * (3 / 4) ** (1 - 2 * ratio)
    box_height = min(height, max(1, round((height * width * scale / aspect) ** 0.5)))
    box_width = min(width, max(1, round((height * width * scale * aspect) ** 0.5)))
    return int(y * (height - box_height + 1)), int(x * (width - box_width + 1)), box_height, box_width


def erase_some(images: Tensor, seeds: Sequence[float], share: float) -> None:
    """Put into uint8 (N, C, H, W) without gaps, on any device, the boxes that `recolour_and_erase` without a policy
    puts into images with `seeds` (N,), their last draws, one after another."""
    shape = tuple(images.shape[1:])
    next_image, *steps = images.stride()
    places = np.asarray(sum(step * axis for step, axis in zip(steps, np.ogrid[tuple(map(slice, shape))])))
    where, what = [], []
    random = Random()
    for number, seed in enumerate(seeds):
        random.seed(seed)
        if random.random() < share:
            rows, columns, noise = box_of_noise(shape, random)
            where.append(places[:, rows, columns].ravel() + number * next_image)
            what.append(noise.ravel())
    if where:
        changes = [torch.from_numpy(np.concatenate(parts)) for parts in (where, what)]
        if images.device.type == "cuda":  # a copy from other memory may wait for all that the device has to do
            changes = [change.pin_memory() for change in changes]
        index, values = (change.to(images.device, non_blocking=True) for change in changes)
        images.as_strided((images.numel(),), (1,))[index] = values


def recolour_and_erase(image: Tensor, drawn: Sequence[float], augmentation: Augmentation) -> Tensor:
    """uint8 (C, H, W) with its draws -> the same after the policy and the erasing of `augmentation`."""
    random = Random(drawn[5])
    if augmentation.policy != "none":
        image = apply_policy(image, augmentation.policy, random, augmentation.policy_level)
    return erase(image, random) if random.random() < augmentation.erasing else image
