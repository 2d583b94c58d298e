"""From a file's bytes to what a network sees. One record, stored with the model and run wherever it is used."""

import io
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from resnetkit.data import bands, encoded, guard
from resnetkit.data.encoded import BadImage as BadImage
from resnetkit.errors import ResnetkitError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each orientation
PHOTO_SIZE = 224  # what networks of photographs see where nothing else is said (He et al. 2015, section 3.4)
FRAMINGS = ("crop", "letterbox", "squash")
LETTERBOX_GREY = 114  # about the mean of photographs, as detectors pad
PIL_MODES = {"rgb": "RGB", "grey": "L"}
COLOURS = {"rgb": 3, "grey": 1}
CHANNELS = 'channels must be rgb, grey or a number of bands such as "5"'

Shrink = Callable[[int, int], int]  # (height, width) of a picture, upright -> by what factor it may come smaller


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes what a network sees: framed, and its pixels normalised. Raises ResnetkitError for what is
    impossible.

    `size` is (height, width) in pixels. `framing` is how a picture gets there: `crop` resizes its shorter side to
    `resize` and cuts out the centre; `letterbox` fits all of it in and pads with grey; `squash` resizes it whole, which
    leaves images of that size as they are.

    `channels` is rgb, grey, or the number of bands of images that are no pictures, such as "5".
    `mean` and `std` are per channel, of values in 0..1. Resizing is antialiased, as Pillow's is.
    """

    size: tuple[int, int]
    resize: int | None = None
    framing: str = "crop"
    channels: str = "rgb"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        whole = _are(self.size, Integral) and len(self.size) == 2 and min(self.size) >= 1
        self._refuse(
            {
                "size must be two whole numbers of at least 1": not whole,
                "resize must be a whole number": self.resize is not None and not _are([self.resize], Integral),
                "mean and std must be numbers in brackets": not (_are(self.mean, Real) and _are(self.std, Real)),
                CHANNELS: not isinstance(self.channels, str) or not count_channels(self.channels),
            }
        )
        object.__setattr__(self, "size", tuple(map(int, self.size)))
        object.__setattr__(self, "resize", None if self.resize is None else int(self.resize))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        count = count_channels(self.channels)
        self._refuse(
            {
                f"mean and std need {count} values": not len(self.mean) == len(self.std) == count,
                "std must be above 0": not all(value > 0 for value in self.std),
                "interpolation must be bilinear or bicubic": self.interpolation not in ("bilinear", "bicubic"),
                f"framing must be {', '.join(FRAMINGS)}": self.framing not in FRAMINGS,
                "resize goes with framing crop and no other": (self.resize is not None) != (self.framing == "crop"),
                "resize must be at least the larger side of size": self.resize is not None
                and self.resize < max(self.size),
            }
        )

    def _refuse(self, problems: dict[str, bool]) -> None:
        for problem, present in problems.items():
            if present:
                raise ResnetkitError(f"preprocessing: {problem}; got {self}")

    def decode(self, source: Any) -> Tensor:
        """A path, bytes, archive member, PIL image or (H, W[, C]) array -> uint8 (C, H, W) in `channels`.

        Raises BadImage.
        """
        return decode(source, self.channels)

    def frame(self, image: Tensor) -> Tensor:
        """uint8 (..., C, H, W) of any size -> uint8 (..., C, *size)."""
        if self.framing == "letterbox":
            return letterbox(image, self.size, self.interpolation)
        if self.resize is None:  # squash
            same = tuple(image.shape[-2:]) == tuple(self.size)
            return image if same else resize(image, list(self.size), self.interpolation)
        height, width = image.shape[-2:]
        short = min(height, width)
        if short != self.resize:
            if height * width * (self.resize / short) ** 2 > guard.MAX_PIXELS:
                image = _middle(image)
            image = resize(image, [self.resize * side // short for side in image.shape[-2:]], self.interpolation)
        # The longer side is rounded down, the margins to even, as torchvision's Resize and CenterCrop do.
        top, left = (round((have - want) / 2) for have, want in zip(image.shape[-2:], self.size))
        return image[..., top : top + self.size[0], left : left + self.size[1]]

    def normalise(self, batch: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32, (value / 255 - mean) / std."""
        # Not made on the device: a GPU would be waited for.
        mean, std = (torch.tensor(v).to(batch.device, non_blocking=True) for v in (self.mean, self.std))
        # In place: four float32 copies of a batch of photos take three times as long to allocate as to compute.
        pixels = batch.to(torch.float32, copy=True)
        if pixels.is_contiguous(memory_format=torch.channels_last):
            # By whole rows: pixel by pixel the loops inside are as long as there are channels, which for three takes
            # four times as long.
            count, channels, height, width = pixels.shape
            rows = pixels.permute(0, 2, 3, 1).view(count, height, width * channels)
            rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
            return pixels
        return pixels.div_(255).sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Preprocessing":
        known = {field.name for field in fields(cls)}
        if unknown := set(record) - known:
            raise ResnetkitError(
                f"preprocessing: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        if "framing" not in record:  # files from before it was a choice
            record = {"framing": "squash" if record.get("resize") is None else "crop"} | record
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**values)


def resize(image: Tensor, size: list[int], interpolation: str = "bilinear") -> Tensor:
    """Antialiased resize of uint8 (..., C, H, W) to (height, width), rounding to uint8 as Pillow does."""
    if image.stride(-3) == 1:
        # By way of (..., H, W, C), for strides that torch takes for channels_last: with those of one image, or of a
        # crop, it would resize into planes, which takes half as long again.
        pixels = image.movedim(-3, -1).contiguous()
        batch = pixels.reshape(-1, *pixels.shape[-3:]).movedim(-1, 1)
    else:
        if image.shape[-1] == 1:  # where its stride, of no meaning else, is not 1 torch 2.13 reads other pixels
            image = image.clone(memory_format=torch.contiguous_format)
        batch = image.reshape(-1, *image.shape[-3:])
    if batch.device.type == "cpu":
        resized = F.interpolate(batch, size, mode=interpolation, antialias=True, align_corners=False)
    else:  # torch has it for bytes on a CPU alone, and there with weights of 16 bits: a step of a byte may differ
        exact = F.interpolate(batch.float(), size, mode=interpolation, antialias=True, align_corners=False)
        resized = exact.round_().clamp_(0, 255).to(torch.uint8)
    return resized.reshape(*image.shape[:-2], *size)


def _middle(image: Tensor) -> Tensor:
    """Of a strip what its centre crop comes from, with room for the filter; other images whole."""
    height, width = image.shape[-2:]
    top, left = (max(0, (side - 9 * min(height, width)) // 2) for side in (height, width))
    return image[..., top : height - top, left : width - left]


def letterbox(image: Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """uint8 (..., C, H, W) -> (..., C, *size): as large as fits, in the middle of grey."""
    scale = min(want / have for want, have in zip(size, image.shape[-2:]))
    fitted = [min(want, max(1, round(have * scale))) for want, have in zip(size, image.shape[-2:])]
    if list(image.shape[-2:]) != fitted:
        image = resize(image, fitted, interpolation)
    top, left = ((want - have) // 2 for want, have in zip(size, fitted))
    bottom, right = size[0] - fitted[0] - top, size[1] - fitted[1] - left
    return F.pad(image, (left, right, top, bottom), value=LETTERBOX_GREY)


def decode(source: Any, channels: str | None = None, shrink: Shrink | None = None) -> Tensor:
    """Pixels as a person sees them: turned by EXIF, transparency on white, 16 bits and floats in 0..1 scaled to 8 bits;
    of an animation the first frame, of a document the first page. Colour profiles are not applied.

    `channels` None gives a picture as rgb and any other image in the bands it has. With `shrink`, for training only, a
    JPEG is decoded to a half, a quarter or an eighth, whichever is the least not below that. Raises BadImage for what
    has other bands, is damaged, of another format, or would take more than seconds or a GiB to decode.
    """
    try:
        opened = _open(source, channels)
        if isinstance(opened, Image.Image):
            if shrink is not None:
                _draft(opened, shrink)
            opened.load()
            mode = PIL_MODES.get(channels or "rgb", "RGB")
            opened = np.array(_eight_bits(_upright(opened)).convert(mode))
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("not an image of a known format") from error
    except Exception as error:  # Pillow's plugins raise many kinds on broken files
        raise BadImage(str(error).replace("\n", " ") or type(error).__name__) from error
    pixels = torch.from_numpy(opened.reshape(*opened.shape[:2], -1)).permute(2, 0, 1)
    if channels is not None and (reason := mismatch(len(pixels), count_channels(channels))):
        raise BadImage(reason)
    return as_channels(pixels[None], channels)[0]


def picture_size(source: Any) -> tuple[int, int]:
    """(height, width) of a picture as a person sees it, from its header. Raises BadImage."""
    try:
        opened = _open(source, None)
        if not isinstance(opened, Image.Image):
            return opened.shape[0], opened.shape[1]
        width, height = opened.size
        return (width, height) if _lies_down(opened) else (height, width)
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(str(error).replace("\n", " ") or type(error).__name__) from error


def _draft(image: Image.Image, shrink: Shrink) -> None:
    width, height = image.size
    factor = shrink(width, height) if _lies_down(image) else shrink(height, width)
    if factor > 1:
        image.draft(None, (width // factor, height // factor))


def _lies_down(image: Image.Image) -> bool:
    """Whether EXIF is still to turn it by a quarter; the sides of a TIFF are turned already."""
    try:
        return image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # as in _upright
        return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged note about the pixels is no damage to them
        return image
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    scaled = image.mode == "I" and image.format == "PPM"  # by Pillow, from the file's own maximum to 65535
    if image.mode.startswith("I;16") or scaled:
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(bands.as_bytes(np.asarray(image)))
    if image.mode == "I":
        raise BadImage(f"{image.mode} pixels have no known range; save as 8 or 16 bits")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _are(values: Any, kind: Any) -> bool:
    """Whether they are finite numbers of a kind, NumPy's too, one after another."""
    try:
        return all(isinstance(value, kind) and isfinite(value) for value in values)
    except (TypeError, OverflowError):
        return False


def count_channels(channels: str) -> int:
    """3 of rgb, 1 of grey, 5 of "5"; 0 of any other word, "1" and "3" among them."""
    number = int(channels) if re.fullmatch(r"[1-9]\d{0,4}", channels) else 0
    return COLOURS.get(channels, 0 if number in COLOURS.values() else number)


def channels_of(count: int) -> str:
    """rgb of 3, grey of 1, "5" of 5: the word that `count_channels` counts."""
    return next((word for word, number in COLOURS.items() if number == count), str(count))


def mismatch(has: int, wanted: int) -> str:
    """Why an image of so many channels is none of a set of others, or "": grey and rgb go together."""
    kinds = ["a picture" if count in COLOURS.values() else f"an image of {count} bands" for count in (has, wanted)]
    return "" if kinds[0] == kinds[1] else f"{kinds[0]}, where {kinds[1]} is wanted"


def as_channels(images: Tensor, channels: str | None) -> Tensor:
    """uint8 (N, C, H, W) -> those of `channels`, None for all there are, grey as rgb; to grey with Pillow's weights."""
    count = images.shape[1]
    if count not in COLOURS.values() or channels is not None and count == count_channels(channels):
        return images
    if channels != "grey":
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def is_grey(image: Tensor) -> bool:
    """Whether uint8 (C, H, W) is a picture without a colour."""
    return len(image) == 3 and bool((image[0] == image[1]).all() and (image[1] == image[2]).all())


def stored_grey(data: bytes) -> bool:
    """Whether a picture that reads has no room for colours."""
    opened = _open(data, None)
    return isinstance(opened, Image.Image) and opened.mode == "L"


def for_people(image: Tensor) -> Tensor:
    """uint8 (C, H, W) of any channels -> rgb (3, H, W), the first three bands; of one or two the first, as grey."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def _open(source: Any, channels: str | None) -> Image.Image | np.ndarray:
    """A picture, or the uint8 (H, W[, C]) array of what is none."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        source = source[:, :, 0] if source.shape[2:] == (1,) else source
        picture = source.dtype in (np.uint8, bool) and source.shape[2:] in ((), (2,), (3,), (4,))  # as Pillow has them
        colours = channels is None or channels in COLOURS
        return Image.fromarray(source) if picture and colours else bands.as_bytes(source)
    if not isinstance(source, (str, Path, bytes, encoded.Member)):
        what = f"a path, bytes, PIL image or (H, W[, C]) array, not {type(source).__name__}"
        raise BadImage(f"{what}; for several: predict([...])")
    data = encoded.read(Path(source) if isinstance(source, str) else source)
    if reason := guard.refusal(data):
        raise BadImage(reason)
    values = bands.read(data)
    if values is not None:
        return values
    image = Image.open(io.BytesIO(data), formats=guard.FORMATS)
    codec = image.tile[0].codec_name if image.tile else ""
    if reason := guard.too_much(image.width, image.height, codec, data):
        raise BadImage(reason)
    return image
