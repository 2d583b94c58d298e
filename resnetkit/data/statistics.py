"""A set of images in figures."""

from statistics import median
from typing import Any

import numpy as np

from resnetkit.data.survey import Picture, Survey


def statistics(survey: Survey) -> dict[str, Any]:
    """Images by class and part; sides in pixels, aspect ratios (width by height) and bytes as least, median and most;
    channels; mean and standard deviation of each channel in 0..1, every training image counting alike."""
    parts = list(dict.fromkeys(picture.part for picture in survey.pictures))
    counts = {part: survey.count(part) for part in parts}
    pictures = survey.pictures
    return {
        "images": len(pictures),
        "unreadable": survey.unreadable,
        "parts": {part: sum(picture.part == part for picture in pictures) for part in parts},
        "classes": {
            name: {part: counts[part][label] for part in parts} for label, name in enumerate(survey.dataset.classes)
        },
        "height": _range([picture.portrait.side[0] for picture in pictures]),
        "width": _range([picture.portrait.side[1] for picture in pictures]),
        "aspect": _range([picture.portrait.aspect for picture in pictures]),
        "bytes": _range([picture.bytes for picture in pictures]) | {"total": sum(p.bytes for p in pictures)},
        "channels": _channels(pictures),
        **_moments([picture for picture in pictures if picture.part in ("train", "all")] or pictures),
    }


def _channels(pictures: list[Picture]) -> dict[str, int]:
    """Images with colour, grey ones, and under the number of their bands those that are no pictures."""
    bands = len(pictures[0].portrait.mean)
    if bands > 3 or bands == 2:
        return {str(bands): len(pictures)}
    grey = sum(picture.portrait.grey for picture in pictures)
    return {"rgb": len(pictures) - grey, "grey": grey}


def _range(values: list[Any]) -> dict[str, Any]:
    return {name: round(of(values), 3) for name, of in (("min", min), ("median", median), ("max", max))}


def _moments(pictures: list[Picture]) -> dict[str, list[float]]:
    mean = np.mean([picture.portrait.mean for picture in pictures], axis=0)
    square = np.mean([picture.portrait.square for picture in pictures], axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return {"mean": [round(float(v), 4) for v in mean], "std": [round(float(v), 4) for v in std]}
