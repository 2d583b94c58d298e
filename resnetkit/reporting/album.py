"""The run's images as pictures inside the page, within a budget of bytes."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from resnetkit.data.datasets import Part, open_dataset
from resnetkit.data.preprocess import BadImage, Preprocessing, as_channels, decode, for_people
from resnetkit.errors import ResnetkitError

BUDGET = 3_500_000  # characters of data URIs; the page stays below 5 MB
TINY = 64  # pixels a side; such images are kept as they are and shown enlarged


@dataclass(frozen=True)
class Picture:
    """`width` and `height` are those it is shown at, in CSS pixels."""

    uri: str
    width: int
    height: int
    tiny: bool


class Album:
    """Looks images up by the names in split.csv. `missing` has those asked for and not to be had; `problem` says why
    the data cannot be opened at all."""

    def __init__(self, data: str, preprocessing: Preprocessing) -> None:
        self.preprocessing, self.problem = preprocessing, ""
        self.missing: set[str] = set()
        self._left = BUDGET
        self._places: dict[str, tuple[Part, int]] = {}
        try:
            dataset = open_dataset(data)
        except (ResnetkitError, OSError) as error:
            self.problem = str(error)
            return
        for part in dataset.parts.values():
            self._places |= {name: (part, i) for i, name in enumerate(part.names)}

    def thumbnail(self, name: str, side: int) -> Picture | None:
        """The whole image, no side longer than `side`; None where it is gone or the page is full."""
        pixels = self._pixels(name, None)
        return None if pixels is None else self._picture(pixels, side)

    def framed(self, name: str, side: int) -> Picture | None:
        """What the network sees of the image; None as for `thumbnail`."""
        pixels = self._pixels(name, self.preprocessing.channels)
        return None if pixels is None else self._picture(self.preprocessing.frame(pixels), side)

    def _pixels(self, name: str, channels: str | None) -> Tensor | None:
        try:
            part, i = self._places[name]
            image = part.images[i]
            return as_channels(image[None], channels)[0] if isinstance(image, Tensor) else decode(image, channels)
        except (KeyError, BadImage):
            self.missing.add(name)
            return None

    def _picture(self, pixels: Tensor, side: int) -> Picture | None:
        image = _image(pixels)
        tiny = max(image.size) <= TINY
        if not tiny:
            image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "PNG" if tiny else "JPEG", quality=82, optimize=True)
        uri = f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
        if len(uri) > self._left:
            return None
        self._left -= len(uri)
        scale = max(1, side // max(image.size)) if tiny else 1
        return Picture(uri, image.width * scale, image.height * scale, tiny)


def _image(pixels: Tensor) -> Image.Image:
    array: np.ndarray = (pixels if len(pixels) == 1 else for_people(pixels)).permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
