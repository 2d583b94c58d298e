"""The fifteen common corruptions at five severities (Hendrycks & Dietterich 2019, section 4), the same at every run.

The formulas and strengths are those of the authors' programs (github.com/hendrycks/robustness): ImageNet-C's, and
CIFAR-10-C's for images of at most SMALL pixels a side. Frost alone differs: see `corrupt_weather.frost`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnetkit.data import corrupt_blur, corrupt_digital, corrupt_noise, corrupt_weather
from resnetkit.data.corrupt_blur import NUDGE, Array
from resnetkit.errors import ResnetkitError, did_you_mean

SMALL = 64
SEVERITIES = (1, 2, 3, 4, 5)
PIECE = 2**20  # values that are corrupted together: few enough to stay in a processor's cache

Strengths = tuple[tuple[float, ...], ...]  # one a severity: what the function takes after images and generators


class Corruption(NamedTuple):
    """`apply` takes float32 images (N, C, H, W) in 0..1, a generator for each and the numbers of one severity."""

    apply: Callable[..., Array]
    photo: Strengths
    small: Strengths


KINDS = {
    "gaussian_noise": Corruption(
        corrupt_noise.gaussian_noise,
        photo=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        small=((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    ),
    "shot_noise": Corruption(
        corrupt_noise.shot_noise,
        photo=((60,), (25,), (12,), (5,), (3,)),
        small=((500,), (250,), (100,), (75,), (50,)),
    ),
    "impulse_noise": Corruption(
        corrupt_noise.impulse_noise,
        photo=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        small=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    ),
    "defocus_blur": Corruption(
        corrupt_blur.defocus_blur,
        photo=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": Corruption(
        corrupt_blur.glass_blur,
        photo=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": Corruption(
        corrupt_blur.motion_blur,
        photo=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": Corruption(
        corrupt_blur.zoom_blur,
        photo=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "snow": Corruption(
        corrupt_weather.snow,
        photo=(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        small=(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(
        corrupt_weather.frost,
        # The last number is ours: the authors reduce their frost to a fifth for small images, which leaves it finer.
        photo=tuple((*pair, 1.05) for pair in ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
        small=tuple((*pair, 0.8) for pair in ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    ),
    "fog": Corruption(
        corrupt_weather.fog,
        photo=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "brightness": Corruption(
        corrupt_weather.brightness,
        photo=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        small=((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    ),
    "contrast": Corruption(
        corrupt_digital.contrast,
        photo=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        small=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    ),
    "elastic_transform": Corruption(
        corrupt_digital.elastic_transform,
        # Theirs are shares of 244 for images of 224; these are shares of the side.
        photo=tuple(
            tuple(share * 244 / 224 for share in shares)
            for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
        small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": Corruption(
        corrupt_digital.pixelate,
        photo=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        small=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    ),
    "jpeg_compression": Corruption(
        corrupt_digital.jpeg_compression,
        photo=((25,), (18,), (15,), (10,), (7,)),
        small=((80,), (65,), (58,), (50,), (40,)),
    ),
}


def corrupt(images: Tensor, kind: str, severity: int, *, seed: int = 0, first: int = 0) -> Tensor:
    """uint8 (N, C, H, W) of one or three channels -> the same shape, corrupted.

    The images are number `first` and following of their set: what happens to one is a function of (seed, its number,
    kind, severity), whatever lies beside it. Raises ResnetkitError for a kind or severity that there is not.
    """
    if kind not in KINDS:
        raise ResnetkitError(f"corruption {kind!r} is not known; {did_you_mean(kind, KINDS)}")
    if severity not in SEVERITIES:
        raise ResnetkitError(f"severity={severity} is not one of {', '.join(map(str, SEVERITIES))}")
    piece = max(1, PIECE // images[0].numel())
    changed = [
        corrupt_with(part, kind, severity, generators(part, kind, severity, seed, first + i * piece))
        for i, part in enumerate(images.split(piece))
    ]
    return torch.cat(changed)


def generators(images: Tensor, kind: str, severity: int, seed: int, first: int) -> list[np.random.Generator]:
    """One for each image."""
    number = list(KINDS).index(kind)
    return [np.random.default_rng((seed, first + i, number, severity)) for i in range(len(images))]


def corrupt_with(images: Tensor, kind: str, severity: int, rngs: list[np.random.Generator]) -> Tensor:
    """The corruption with the randomness of the given generators; fractions of a grey level are cut off, as theirs."""
    found = KINDS[kind]
    strengths = found.small if max(images.shape[2:]) <= SMALL else found.photo
    x = images.numpy().astype(np.float32) / 255
    changed = np.clip(found.apply(x, rngs, *strengths[severity - 1]), 0, 1)
    return torch.from_numpy((changed * 255 + NUDGE).astype(np.uint8))
