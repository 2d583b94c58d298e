"""Corruptions by processing. Images are float32 (N, C, H, W) in 0..1, with one generator each."""

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import fft

from resnetkit.data.corrupt_blur import Array


def contrast(x: Array, rngs: Sequence[np.random.Generator], share: float) -> Array:
    mean = x.mean((2, 3), keepdims=True)
    return (x - mean) * share + mean


def elastic_transform(
    x: Array, rngs: Sequence[np.random.Generator], strength: float, smoothness: float, shift: float
) -> Array:
    """A random affine map, then a random displacement of every pixel; the numbers are shares of the shorter side."""
    height, width = x.shape[2:]
    side = min(height, width)
    points = np.array([width // 2, height // 2]) + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + np.stack([rng.uniform(-shift * side, shift * side, (3, 2)) for rng in rngs])
    ones = np.ones((len(x), 3, 1))
    back = np.linalg.solve(np.concatenate([moved, ones], 2), np.broadcast_to(points, moved.shape).astype(float))
    grid = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones((height, width))], 2)
    warped = _sample(x, grid.reshape(1, -1, 3) @ back, centred=True)
    if not strength:
        return warped
    drawn = np.stack([[rng.uniform(-1, 1, (height, width)) for _ in "xy"] for rng in rngs]).astype(np.float32)
    shifts = _smooth(drawn, smoothness * side) * (strength * side)
    return _sample(warped, (grid[..., :2] + np.moveaxis(shifts, 1, -1)).reshape(len(x), -1, 2), centred=False)


def _smooth(x: Array, sigma: float) -> Array:
    """(..., H, W) under a Gaussian cut off at three sigma, mirrored at its rims, which may be wider than the image:
    a product in the cosine transform takes as long for any width."""
    reach = int(3 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    down, across = (
        (np.cos(np.pi / side * np.outer(np.arange(side), offsets)) @ taps / taps.sum()).astype(np.float32)
        for side in x.shape[-2:]
    )
    return fft.idctn(fft.dctn(x, axes=(-2, -1)) * (down[:, None] * across), axes=(-2, -1))


def _sample(x: Array, where: Array, centred: bool) -> Array:
    """Bilinear values at pixel coordinates (N, H * W, 2), x before y; beyond the edge the image is mirrored at the
    centres of its outermost pixels (`centred`) or at their rims."""
    sides = np.array(x.shape[:1:-1])
    scaled = where * (2 / np.maximum(sides - 1, 1)) - 1 if centred else (2 * where + 1) / sides - 1
    grid = torch.from_numpy(scaled.reshape(len(x), *x.shape[2:], 2).astype(np.float32))
    pixels = torch.from_numpy(x)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=centred).numpy()


def pixelate(x: Array, rngs: Sequence[np.random.Generator], share: float) -> Array:
    """Fewer pixels, enlarged to the same size again."""
    height, width = x.shape[2:]
    fewer = max(1, int(width * share)), max(1, int(height * share))
    box = Image.Resampling.BOX
    return _from_pictures([picture.resize(fewer, box).resize((width, height), box) for picture in _pictures(x)])


def jpeg_compression(x: Array, rngs: Sequence[np.random.Generator], quality: int) -> Array:
    return _from_pictures([_through_jpeg(picture, quality) for picture in _pictures(x)])


def _through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _pictures(x: Array) -> list[Image.Image]:
    pixels = (x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in pixels]


def _from_pictures(pictures: list[Image.Image]) -> Array:
    pixels = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
