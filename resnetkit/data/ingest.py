"""The one pass over every image before training: does it read, how large is it, what is its hash."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.data import encoded
from resnetkit.data.encoded import BadImage, Encoded
from resnetkit.data.parallel import map_images
from resnetkit.data.parts import Dataset
from resnetkit.data.preprocess import COLOURS, as_channels, count_channels, decode, is_grey, mismatch, stored_grey
from resnetkit.data.progress import watched
from resnetkit.errors import TooManyBadImages, require_number

GLANCE = 8  # times smaller, the least that a JPEG is decoded to
SMALL = 64  # pixels a side; a set no larger, all of one size, is kept decoded in memory


@dataclass(frozen=True)
class Ingested:
    """A dataset whose every image reads. `hashes` by part, of the file's bytes or of the pixels; `side` is
    (height, width) where all images share it; `channels` is rgb, grey or a number of bands. `measured` by part has what
    `ingest` was asked to measure of each image."""

    dataset: Dataset
    hashes: dict[str, list[str]]
    side: tuple[int, int] | None
    channels: str
    measured: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Seen:
    digest: str
    reason: str = ""
    side: tuple[int, int] = (0, 0)
    channels: int = 3
    grey: bool = True
    pixels: np.ndarray | None = None
    measured: Any = None


Measure = Callable[[Tensor], Any]


def ingest(
    dataset: Dataset,
    max_bad: float,
    channels: str | None = None,
    measure: Measure | None = None,
    *,
    whole: bool = True,
) -> Ingested:
    """Decode everything once, leave out what does not read, decode small sets for good.

    `channels` None takes grey where no image has a colour, else rgb; or the bands that most training images have, and
    leaves others out. `measure` sees the uint8 (C, H, W) pixels of every image, grey as rgb, so that who needs more of
    them does not decode twice. Without `whole` large JPEGs are decoded at an eighth of their size, which takes a few
    times less and tells as much of whether they read; `measure` may then see them so. Raises TooManyBadImages past the
    share `max_bad` of the images of the parts, and when nothing is left of one.
    """
    require_number("max_bad", max_bad, 0, 1)
    looks = {
        name: list(watched(_look(part.images, measure, whole), len(part), f"reading {name} images"))
        for name, part in dataset.parts.items()
    }
    wanted = count_channels(channels) if channels else _usual_channels(looks)
    looks = {name: [_checked(one, wanted) for one in seen] for name, seen in looks.items()}
    bad = [(dataset.parts[n].names[i], s.reason) for n, seen in looks.items() for i, s in enumerate(seen) if s.reason]
    total = sum(map(len, looks.values()))
    if len(bad) > max_bad * total:
        first = f"{bad[0][0]}: {bad[0][1]}"
        raise TooManyBadImages(f"{len(bad)} of {total} images cannot be read (max_bad {max_bad:g}); the first: {first}")
    good = {name: [s for s in seen if not s.reason] for name, seen in looks.items()}
    everything = [s for seen in good.values() for s in seen]
    sides = {s.side for s in everything}
    side = sides.pop() if len(sides) == 1 else None
    if channels is None and wanted in COLOURS.values():
        channels = "grey" if all(s.grey for s in everything) else "rgb"
    channels = channels or str(wanted)
    parts = {}
    for name, seen in looks.items():
        if not good[name]:
            first = f"{dataset.parts[name].names[0]}: {seen[0].reason}" if seen else "it has none"
            raise TooManyBadImages(f"{dataset.name}: no readable image in its {name} part; the first: {first}")
        part = dataset.parts[name].take(torch.tensor([i for i, s in enumerate(seen) if not s.reason]))
        if side and max(side) <= SMALL and not isinstance(part.images, Tensor):
            part.images = torch.from_numpy(np.stack([s.pixels for s in good[name] if s.pixels is not None]))
        if isinstance(part.images, Tensor):
            part.images = as_channels(part.images, channels).contiguous()
        parts[name] = part
    hashes = {name: [s.digest for s in seen] for name, seen in good.items()}
    measured = {name: [s.measured for s in seen] for name, seen in good.items()} if measure else {}
    return Ingested(replace(dataset, parts=parts, bad=[*dataset.bad, *bad]), hashes, side, channels, measured)


def _usual_channels(looks: dict[str, list[_Seen]]) -> int:
    """Of the readable training images, or of the first part where there are none."""
    seen = looks.get("train", looks.get("all", next(iter(looks.values()))))
    counts = Counter(one.channels for one in seen if not one.reason)
    return counts.most_common(1)[0][0] if counts else 3


def _checked(seen: _Seen, wanted: int) -> _Seen:
    """Bad where its channels are not those of the set."""
    reason = seen.reason or mismatch(seen.channels, wanted)
    return replace(seen, reason=reason) if reason else seen


def _look(images: Tensor | Sequence[Encoded], measure: Measure | None, whole: bool) -> Iterator[_Seen]:
    if isinstance(images, Tensor):
        side, grey = (images.shape[2], images.shape[3]), images.shape[1] == 1
        measured = map(measure, as_channels(images, "rgb")) if measure else repeat(None)
        for image, found in zip(images, measured):
            yield _Seen(digest(image.numpy().tobytes()), side=side, grey=grey, measured=found)
        return
    yield from map_images(partial(_look_at, measure=measure, whole=whole), images)


def _look_at(image: Encoded, measure: Measure | None, whole: bool) -> _Seen:
    data = b""
    sides: list[tuple[int, int]] = []  # of a picture, before it is made smaller

    def glance(height: int, width: int) -> int:
        sides.append((height, width))
        return GLANCE if min(height, width) > SMALL else 1

    try:
        data = encoded.read(image)
        pixels = decode(data, shrink=None if whole else glance)
        grey = is_grey(pixels)
        if sides and sides[0] != pixels.shape[1:] and grey and not stored_grey(data):
            pixels = decode(data)  # a little colour may have gone
            grey = is_grey(pixels)
    except BadImage as error:
        return _Seen(digest(data), reason=str(error))
    side = sides[0] if sides else (pixels.shape[1], pixels.shape[2])
    kept = pixels.numpy().copy() if max(side) <= SMALL else None
    measured = measure(pixels) if measure else None
    return _Seen(digest(data), side=side, channels=len(pixels), grey=grey, pixels=kept, measured=measured)


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
