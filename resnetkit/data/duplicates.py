"""Copies of one picture: near duplicates found from thumbnails, and groups of what belongs together.

A picture that was resized, compressed again, brightened or slightly cropped keeps its low frequencies. Two thumbnails
are compared by the cosine of their first DCT coefficients, weighted by frequency: the amplitudes of natural images
fall as 1/f (Field 1987), so the weight makes every coefficient count alike and pictures of different things
uncorrelated. All pairs are compared at 6x6 coefficients; those that are near are compared again at 12x12, each picture
cropped in 64 ways to lie on the other.
"""

import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from resnetkit.data.survey import THUMBNAIL

COARSE, FINE = 6, 12  # coefficients a side
LIKELY = 0.65  # coarse cosine of pairs worth a second look; crops to 9/10 of each side keep 99 % above it
SAME = 0.83  # cosine of the aligned pair; chosen on planted copies and on CIFAR-10 (benchmarks/duplicates.py)
COLOUR = 2.0  # weight of colour beside brightness
CONTRAST = 0.1  # a flat picture's rounding errors are no likeness
LOOKS = 30  # pairs an image, on average, that are looked at twice
CROPS = [(0.0, 1.0), *((o / 40, o / 40 + 0.95) for o in range(3)), *((o / 30, o / 30 + 0.9) for o in range(4))]
ROWS, STACK = 1024, 64  # images compared at a time: at the first look, at the second
SAMPLE = 512  # images that tell how alike the pictures of a set are
FEWEST = 64  # images from which a set can be judged


class Pair(NamedTuple):
    """Indices of two images, the first below the second, and how alike they are in SAME..1."""

    first: int
    second: int
    score: float


def near_duplicates(thumbnails: Tensor) -> list[Pair]:
    """Pairs of thumbnails, uint8 (N, 3, 32, 32), that show one picture.

    A set of pictures that are all alike, digits for one, asks for a greater likeness than photos do: as much as
    chance would not give to a single pair of it.
    """
    coarse, fine = (_describe(thumbnails, _waves(count)) for count in (COARSE, FINE))
    first, second = _candidates(coarse).unbind(1)
    if not len(first):
        return []
    score = torch.maximum(_aligned(thumbnails, fine, first, second), _aligned(thumbnails, fine, second, first))
    same = score > max(SAME, _by_chance(fine))
    columns = (first[same].tolist(), second[same].tolist(), score[same].clamp(max=1).tolist())
    return [Pair(*row) for row in zip(*columns)]


def equal_groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indices of equal keys, a list for each key that occurs twice or more."""
    places: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    return [group for group in places.values() if len(group) > 1]


def connected(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` items the smallest index that links lead to: equal for what belongs together."""
    root = list(range(count))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for a, b in links:
        low, high = sorted((find(a), find(b)))
        root[high] = low
    return [find(item) for item in range(count)]


def _opponent(thumbnails: Tensor) -> Tensor:
    """uint8 RGB -> float brightness and two differences of colour."""
    red, green, blue = (thumbnails.float() / 255).unbind(1)
    differences = ((red - blue) / math.sqrt(2), (2 * green - red - blue) / math.sqrt(6))
    return torch.stack([(red + green + blue) / 3, *(COLOUR * d for d in differences)], 1)


def _waves(count: int) -> Tensor:
    """The first `count` rows of the orthonormal DCT-II of a thumbnail's side."""
    frequency, position = torch.arange(count)[:, None], torch.arange(THUMBNAIL) + 0.5
    waves = torch.cos(math.pi / THUMBNAIL * frequency * position) * math.sqrt(2 / THUMBNAIL)
    waves[0] /= math.sqrt(2)
    return waves


def _weights(count: int) -> Tensor:
    """(count, count): the frequency of each coefficient; 0 for the mean, so that brightness does not matter."""
    frequency = torch.arange(count, dtype=torch.float32)
    return torch.hypot(frequency[:, None], frequency)


def _describe(thumbnails: Tensor, waves: Tensor) -> Tensor:
    """uint8 (N, 3, 32, 32) -> unit vectors (N, 3 x count x count)."""
    weights = _weights(len(waves))
    coefficients = (waves @ _opponent(piece) @ waves.T * weights for piece in thumbnails.split(ROWS))
    return torch.cat([F.normalize(each.flatten(1), eps=CONTRAST) for each in coefficients])


def _cropped_waves() -> Tensor:
    """(8 x FINE, 32): the coefficients along one axis of eight intervals of it, each stretched to the whole."""
    target = (torch.arange(THUMBNAIL) + 0.5) / THUMBNAIL
    banks = []
    for low, high in CROPS:
        position = ((low + target * (high - low)) * THUMBNAIL - 0.5).clamp(0, THUMBNAIL - 1)
        # Linear interpolation: what each pixel gives to the one at `position`.
        given = (1 - (position[:, None] - torch.arange(THUMBNAIL)).abs()).clamp(min=0)
        banks.append(_waves(FINE) @ given)
    return torch.cat(banks)


def _candidates(coarse: Tensor) -> Tensor:
    """Pairs (P, 2) whose coarse cosine is above LIKELY, or above what leaves LOOKS an image."""
    count = len(coarse)
    floor = LIKELY
    if count > LOOKS:
        floor = max(floor, _quantile(_sample(coarse) @ coarse.T, 1 - LOOKS / count))
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for start in range(0, count, ROWS):
        near = (coarse[start : start + ROWS] @ coarse[start:].T > floor).triu(1)
        found.append(near.nonzero() + start)
    return torch.cat(found)


def _aligned(thumbnails: Tensor, fine: Tensor, cropped: Tensor, whole: Tensor) -> Tensor:
    """For each pair the best cosine of a crop of image `cropped[i]` with all of image `whole[i]`."""
    score = torch.empty(len(cropped))
    order = cropped.argsort()
    chosen, counts = cropped[order].unique_consecutive(return_counts=True)
    bank, weights = _cropped_waves(), _weights(FINE)
    places = iter(order.split(counts.tolist()))
    for batch in chosen.split(STACK):
        images = _opponent(thumbnails[batch])
        grid = (bank @ images @ bank.T).unflatten(3, (len(CROPS), FINE)).unflatten(2, (len(CROPS), FINE))
        crops = (grid.permute(0, 2, 4, 1, 3, 5) * weights).reshape(len(batch), len(CROPS) ** 2, -1)
        for views, pairs in zip(F.normalize(crops, dim=2, eps=CONTRAST), places):
            score[pairs] = (fine[whole[pairs]] @ views.T).amax(1)
    return score


def _by_chance(fine: Tensor) -> float:
    """The cosine that one pair of the set reaches by chance.

    Random unit vectors of d dimensions have cosines of variance 1/d, and exceed t with a probability of about
    (1 - t^2)^((d-1)/2). The median of the squares tells d, whatever copies there are.
    """
    count = len(fine)
    if count < FEWEST:
        return 0.0
    chosen = _sample(fine)
    squares = (chosen @ chosen.T).fill_diagonal_(0).square()
    dimensions = 0.455 / max(1e-9, float(squares[squares > 0].median()))  # the median of chi-square with one degree
    pairs = count * (count - 1) / 2
    return math.sqrt(1 - pairs ** (-2 / max(1.0, dimensions - 1)))


def _sample(vectors: Tensor) -> Tensor:
    """Up to SAMPLE of the vectors, spread over all."""
    return vectors[:: -(-len(vectors) // SAMPLE)]


def _quantile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(1, math.ceil(share * len(flat)))).values)
