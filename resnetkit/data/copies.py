"""Which images of a set are the same picture."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

from torch import Tensor

from resnetkit.data.duplicates import Pair, connected, equal_groups, near_duplicates
from resnetkit.data.preprocess import as_channels, decode
from resnetkit.data.survey import Picture, thumbnails


class Copy(NamedTuple):
    """`second` is a copy of `first` (indices, the first below the second): the same `file`, the same `pixels` in
    another file, or `near`. `score` is 1 for the first two."""

    first: int
    second: int
    kind: str
    score: float


@dataclass(frozen=True)
class Copies:
    """Of each image the index of the first with the same pixels, its own if it is the first. Near duplicates are pairs
    of such first ones."""

    pictures: list[Picture]
    same: list[int]
    near: list[Pair]

    @cached_property
    def together(self) -> list[int]:
        """Of each image the first of all that are the same picture, near duplicates of near duplicates included."""
        links = [*enumerate(self.same), *((a, b) for a, b, _ in self.near)]
        return connected(len(self.same), links)

    @cached_property
    def neighbours(self) -> dict[int, dict[int, float]]:
        """The near duplicates of a first image, with their scores."""
        found: dict[int, dict[int, float]] = {}
        for a, b, score in self.near:
            found.setdefault(a, {})[b] = score
            found.setdefault(b, {})[a] = score
        return found

    def pairs(self) -> list[Copy]:
        """Every copy beside the first of its pixels, then the near duplicates, most alike first."""
        pictures = self.pictures
        exact = [
            Copy(first, i, "file" if pictures[first].hash == pictures[i].hash else "pixels", 1.0)
            for i, first in enumerate(self.same)
            if first != i
        ]
        return exact + [Copy(a, b, "near", score) for a, b, score in sorted(self.near, key=lambda pair: -pair.score)]


def find_copies(pictures: list[Picture]) -> Copies:
    """Compare every image with every other: hashes, then pixels where thumbnails agree, then thumbnails."""
    links = _links(equal_groups(picture.hash for picture in pictures))
    firsts = _firsts(connected(len(pictures), links))
    alike = equal_groups((pictures[i].portrait.side, pictures[i].portrait.thumbnail.tobytes()) for i in firsts)
    for group in alike:
        members = [firsts[i] for i in group]
        equal = equal_groups(_pixel_hash(pictures[i]) for i in members)
        links += [(members[a], members[b]) for a, b in _links(equal)]
    same = connected(len(pictures), links)
    firsts = _firsts(same)
    found = near_duplicates(thumbnails([pictures[i] for i in firsts]))
    return Copies(pictures, same, [Pair(firsts[a], firsts[b], score) for a, b, score in found])


def _links(groups: list[list[int]]) -> list[tuple[int, int]]:
    return [(group[0], other) for group in groups for other in group[1:]]


def _firsts(roots: list[int]) -> list[int]:
    return [i for i, root in enumerate(roots) if i == root]


def _pixel_hash(picture: Picture) -> str:
    image = picture.image
    pixels = as_channels(image[None], None)[0] if isinstance(image, Tensor) else decode(image)
    return blake2b(pixels.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
