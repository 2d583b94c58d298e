"""From a file's bytes to what a network sees. One record, stored with the model and run wherever it is used."""

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from resnetkit.errors import ResnetkitError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ORIENTATION = 0x0112  # the EXIF tag
PIL_MODES = {"rgb": "RGB", "grey": "L"}


class BadImage(ResnetkitError):
    """An image that cannot be read; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """`size` is (height, width) in pixels. The shorter side is resized to `resize` and the centre cropped; with
    `resize` None the whole image is resized to `size`, which leaves images of that size as they are.

    `mean` and `std` are per channel, of values in 0..1. Resizing is antialiased, as Pillow's is.
    """

    size: tuple[int, int]
    resize: int | None
    channels: str = "rgb"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        count = {"rgb": 3, "grey": 1}.get(self.channels)
        problems = {
            "channels must be rgb or grey": count is None,
            f"mean and std need {count} values": not len(self.mean) == len(self.std) == count,
            "std must be above 0": not all(value > 0 for value in self.std),
            "interpolation must be bilinear or bicubic": self.interpolation not in ("bilinear", "bicubic"),
            "size must be two whole numbers of at least 1": len(self.size) != 2 or min(self.size) < 1,
            "resize must be at least the larger side of size": self.resize is not None and self.resize < max(self.size),
        }
        for problem, present in problems.items():
            if present:
                raise ResnetkitError(f"preprocessing: {problem}; got {self}")

    def decode(self, source: Any) -> Tensor:
        """A path, bytes, PIL image or uint8 (H, W[, C]) array -> uint8 (C, H, W) in `channels`. Raises BadImage."""
        return decode(source, self.channels)

    def frame(self, image: Tensor) -> Tensor:
        """uint8 (..., C, H, W) of any size -> uint8 (..., C, *size)."""
        if self.resize is None:
            same = tuple(image.shape[-2:]) == tuple(self.size)
            return image if same else resize(image, list(self.size), self.interpolation)
        height, width = image.shape[-2:]
        if min(height, width) != self.resize:
            scale = self.resize / min(height, width)
            target = [max(self.resize, round(side * scale)) for side in (height, width)]
            image = resize(image, target, self.interpolation)
        top, left = ((have - want) // 2 for have, want in zip(image.shape[-2:], self.size))
        return image[..., top : top + self.size[0], left : left + self.size[1]]

    def normalise(self, batch: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32, (value / 255 - mean) / std."""
        mean, std = (torch.tensor(v, device=batch.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (batch.float() / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Preprocessing":
        known = {field.name for field in fields(cls)}
        if unknown := set(record) - known:
            raise ResnetkitError(
                f"preprocessing: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})


def resize(image: Tensor, size: list[int], interpolation: str = "bilinear") -> Tensor:
    """Antialiased resize of uint8 (..., C, H, W) to (height, width), rounding to uint8 as Pillow does."""
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, size, mode=interpolation, antialias=True, align_corners=False)
    return resized.reshape(*image.shape[:-2], *size)


def decode(source: Any, channels: str) -> Tensor:
    """Pixels as a person sees them: turned by EXIF, transparency on white, 16 bits scaled to 8."""
    try:
        image = _open(source)
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's plugins raise many kinds on broken files
        raise BadImage(str(error).replace("\n", " ") or type(error).__name__) from error
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage(f"{image.mode} pixels have no known range; save as 8 or 16 bits")
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    pixels = np.array(image.convert(PIL_MODES[channels]))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _open(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source))
    return Image.open(io.BytesIO(Path(source).read_bytes()))
