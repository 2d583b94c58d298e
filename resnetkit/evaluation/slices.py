"""Accuracy on kinds of image: small and large, dark and bright, from one folder or another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor

from resnetkit.data.datasets import Part
from resnetkit.data.encoded import Encoded
from resnetkit.data.parallel import map_images
from resnetkit.data.preprocess import as_channels, decode
from resnetkit.evaluation.intervals import wilson_interval

BRIGHTNESS_BINS = 5


@dataclass(frozen=True)
class Look:
    """An image before any framing: its shorter side in pixels, its mean value in 0..1."""

    side: int
    brightness: float


def look(pixels: Tensor) -> Look:
    """Of uint8 pixels (C, H, W), all bands alike."""
    # By numpy, which adds bytes as they are: PyTorch would first copy a large photo to half a GiB of floats.
    return Look(min(pixels.shape[1:]), float(pixels.numpy().mean(dtype=np.float64)) / 255)


def looks(part: Part) -> list[Look]:
    """Of every image of a part, which is decoded for it."""
    if isinstance(part.images, Tensor):
        return [look(pixels) for pixels in as_channels(part.images, None)]
    return list(map_images(_look_at, part.images))


def _look_at(image: Encoded) -> Look:
    return look(decode(image))


def slices(
    right: Tensor, labels: Tensor, names: Sequence[str], seen: Sequence[Look], figure: str = "top1"
) -> dict[str, list[dict[str, Any]]]:
    """The share `right` with its Wilson interval, called `figure`, by size, brightness and folder.

    Smallest and darkest first; folders with the worst first. A kind that does not divide the images is left out, and so
    are folders that are the classes over again.
    """
    measure = partial(_measure, figure, right)
    folders = [str(PurePath(name).parent) for name in names]
    kinds = {
        "size": measure([image.side.bit_length() for image in seen], _sides),
        "brightness": measure(
            [min(int(image.brightness * BRIGHTNESS_BINS), BRIGHTNESS_BINS - 1) for image in seen], _shades
        ),
    }
    truths = labels.unique(dim=0, return_inverse=True)[1].tolist()
    if not len(set(zip(folders, truths))) == len(set(folders)) == len(set(truths)):
        kinds["folder"] = sorted(measure(folders, str), key=lambda row: row[figure])
    return {kind: rows for kind, rows in kinds.items() if len(rows) > 1}


def _measure(figure: str, right: Tensor, keys: Sequence[Any], name: Callable[[Any], str]) -> list[dict[str, Any]]:
    hits: dict[Any, list[bool]] = {}
    for key, hit in zip(keys, right.tolist()):
        hits.setdefault(key, []).append(hit)
    return [
        {
            "slice": name(key),
            "n": len(hits[key]),
            figure: sum(hits[key]) / len(hits[key]),
            f"{figure}_interval": wilson_interval(sum(hits[key]), len(hits[key])),
        }
        for key in sorted(hits)
    ]


def _sides(bits: int) -> str:
    return f"{2 ** (bits - 1)} to {2**bits - 1} px"


def _shades(index: int) -> str:
    return f"{100 * index // BRIGHTNESS_BINS} to {100 * (index + 1) // BRIGHTNESS_BINS} % bright"
