"""Batches whose images are mixtures of two, with targets mixed alike. Every draw comes from the given generator."""

from typing import NamedTuple

import torch
from torch import Tensor

from resnetkit.data.labels import indicators


class Mixing(NamedTuple):
    """Beta parameters of both kinds; 0 leaves a kind out. With both, each batch draws one of the two."""

    mixup: float
    cutmix: float


def mix(
    images: Tensor, labels: Tensor, classes: int, mixing: Mixing, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """float (N, C, H, W) and labels -> mixed images and targets (N, classes); with one class an image they add up to 1.

    Mixup (Zhang et al. 2018) adds images by shares, CutMix (Yun et al. 2019) puts a box of one into the other; shares
    are by area. An image's partner is any of the batch.
    """
    uniform = torch.rand(3, generator=generator, dtype=torch.float64)
    partners = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    cut = bool(uniform[0] < 0.5) if mixing.mixup and mixing.cutmix else bool(mixing.cutmix)
    share = _beta(mixing.cutmix if cut else mixing.mixup, generator)
    if cut:
        height, width = images.shape[2:]
        side = (1 - share) ** 0.5
        centre = uniform[1] * height, uniform[2] * width
        top, bottom, left, right = (
            round(min(max(float(middle) + sign * side * length / 2, 0), length))
            for middle, length in zip(centre, (height, width))
            for sign in (-1, 1)
        )
        images = images.clone()
        images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = images * share + images[partners] * (1 - share)
    targets = indicators(labels, classes).float()
    return images, targets * share + targets[partners] * (1 - share)


def _beta(parameter: float, generator: torch.Generator) -> float:
    """A draw of Beta(parameter, parameter), as a ratio of two gamma draws."""
    gammas = torch._standard_gamma(torch.full((2,), parameter, dtype=torch.float64), generator=generator)
    return float(gammas[0] / gammas.sum())
