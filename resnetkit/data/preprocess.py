"""From a file's bytes to what a network sees. One record, stored with the model and run wherever it is used."""

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
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
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**values)


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
        pixels = np.array(_eight_bits(image).convert(PIL_MODES[channels]))
    except UnidentifiedImageError as error:
        raise BadImage("not an image of a known format") from error
    except Exception as error:  # Pillow's plugins raise many kinds on broken files
        raise BadImage(str(error).replace("\n", " ") or type(error).__name__) from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage(f"{image.mode} pixels have no known range; save as 8 or 16 bits")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def as_channels(images: Tensor, channels: str) -> Tensor:
    """uint8 (N, C, H, W) of 1 or 3 channels -> those of `channels`; to grey with Pillow's weights."""
    if images.shape[1] == {"rgb": 3, "grey": 1}[channels]:
        return images
    if channels == "rgb":
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def _open(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source))
    return Image.open(io.BytesIO(Path(source).read_bytes()))
