"""Photos of a training part kept decoded: smaller, upright, as uint8 in one file that is mapped into memory."""

import os
import warnings
import zlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnetkit.atomic import write_atomically
from resnetkit.data.encoded import BadImage, Encoded
from resnetkit.data.parallel import map_images
from resnetkit.data.parts import Part, named
from resnetkit.data.preprocess import COLOURS, decode, picture_size, resize
from resnetkit.data.progress import watched
from resnetkit.user_cache import require_space


class PhotoCache:
    """`folder` holds the photos of `part` with a shorter side of at most `side` pixels, filled as they are asked for.

    Each has a place of its own and a checksum that is written after it, so one that an interruption cut short is
    decoded again; a process that has seen it fit does not look again. A photo has the same pixels whether it was there
    or not. Nothing stays open here, so that the workers of a loader each open it for themselves. Raises BadImage for
    one that went away, ResourceExhausted where the disk has too little space.
    """

    def __init__(self, folder: Path, part: Part, channels: str, side: int) -> None:
        self.folder, self.channels = folder, channels
        assert not isinstance(part.images, Tensor)
        self._part, self._images = part, part.images
        self._shapes = self._read_shapes(side)  # (N, 2): height and width of each as it is kept
        self._ends = self._shapes.prod(1).cumsum() * COLOURS[channels]
        self._pixels, self._checksums = folder / "pixels", folder / "checksums"
        self._make(self._pixels, self.bytes)
        self._make(self._checksums, 4 * len(part))
        self._known_whole = np.zeros(len(part), bool)  # to this process, by the checksum

    @property
    def bytes(self) -> int:
        """Of all photos together."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (C, H, W), once it is there a view of the file's pages, not to be changed. Raises BadImage."""
        height, width = self._shapes[index].tolist()
        end = int(self._ends[index])
        start = end - height * width * COLOURS[self.channels]
        kept = self._maps[0][start:end]
        if not self._known_whole[index]:
            self._known_whole[index] = _checksum(kept) == self._maps[1][index]
        if not self._known_whole[index]:
            kept = self._decode(index, height, width)
            with suppress(OSError):  # a full disk: decoded again next time
                _write(self._pixels, start, kept.numpy().tobytes())
                _write(self._checksums, 4 * index, _checksum(kept).to_bytes(4, "little"))
        return kept.view(height, width, -1).permute(2, 0, 1)

    def _decode(self, index: int, height: int, width: int) -> Tensor:
        image = decode(self._images[index], self.channels, lambda *full: min(full[0] // height, full[1] // width))
        if tuple(image.shape[1:]) != (height, width):
            image = resize(image, [height, width])
        return image.permute(1, 2, 0).flatten()

    @cached_property
    def _maps(self) -> tuple[Tensor, np.ndarray]:
        # Read only: the kernel wants memory for all of a file that is mapped to be written.
        with warnings.catch_warnings(action="ignore"):  # PyTorch's, that a tensor cannot be
            pixels = torch.from_numpy(np.memmap(self._pixels, np.uint8, "r"))
        return pixels, np.memmap(self._checksums, "<u4", "r")

    def _read_shapes(self, side: int) -> np.ndarray:
        file = self.folder / "shapes.npy"
        with suppress(OSError, ValueError):
            known = np.load(file)
            if known.shape == (len(self._images), 2):
                return known
        found = []
        sizes = map_images(_size_or_reason, self._images)
        for sample, full in enumerate(watched(sizes, len(self._images), "measuring photos")):
            if isinstance(full, BadImage):
                with named(self._part, sample):
                    raise full
            scale = min(1.0, side / min(full))
            found.append([max(1, round(length * scale)) for length in full])
        shapes = np.array(found, dtype=np.int64)

        def write(partial: Path) -> None:
            with open(partial, "wb") as opened:
                np.save(opened, shapes)

        write_atomically(file, write)
        return shapes

    def _make(self, file: Path, size: int) -> None:
        """Claim a file of zeros, which take no space until something is written."""
        if file.exists() and file.stat().st_size == size:
            return
        cure = "free some space, set XDG_CACHE_HOME, or train without --cache"
        require_space(self.folder, size, "the cache", cure)
        with open(file, "wb") as opened:
            opened.truncate(size)


def _size_or_reason(photo: Encoded) -> tuple[int, int] | BadImage:
    """Not raised: what a process beside this one raises does not tell at which photo."""
    try:
        return picture_size(photo)
    except BadImage as error:
        return error


def _checksum(pixels: Tensor) -> int:
    return zlib.crc32(pixels.numpy().data)


def _write(file: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)
