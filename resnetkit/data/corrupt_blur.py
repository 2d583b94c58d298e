"""Corruptions that blur. Images are float32 (N, C, H, W) in 0..1, with one generator each."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import correlate1d, gaussian_filter

Array = NDArray[Any]  # floating point
NUDGE = 1 / 512  # of a grey level: what rounding leaves just under a whole one is whole


def cut_levels(x: Array) -> Array:
    """0..1 with whole grey levels only; fractions are cut off, as the authors' programs do."""
    return np.floor(x * 255 + NUDGE) / 255


def defocus_blur(x: Array, rngs: Sequence[np.random.Generator], radius: float, softness: float) -> Array:
    """Every point becomes a disk, itself blurred a little."""
    kernel = _disk(radius, softness)
    reach = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect")
    shape = [fft.next_fast_len(side, real=True) for side in padded.shape[2:]]
    blurred = fft.irfft2(fft.rfft2(padded, shape) * fft.rfft2(kernel, shape), shape)
    height, width = x.shape[2:]
    return blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


@lru_cache
def _disk(radius: float, softness: float) -> Array:
    line = np.arange(-max(8, ceil(radius)), max(8, ceil(radius)) + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    taps = np.exp(-((np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2) / (2 * softness**2))
    for axis in (0, 1):
        disk = correlate1d(disk, taps / taps.sum(), axis, mode="mirror")
    return disk


def glass_blur(x: Array, rngs: Sequence[np.random.Generator], sigma: float, reach: int, rounds: int) -> Array:
    """Blurred, shuffled and blurred again. As in the authors' program a pixel takes a neighbour's value but does not
    give its own, though it was meant to."""
    height, width = x.shape[2:]
    rows, columns = max(0, height - 2 * reach), max(0, width - 2 * reach)
    sigmas = (0, 0, sigma, sigma)
    shuffled = cut_levels(gaussian_filter(x, sigmas, mode="nearest")).reshape(*x.shape[:2], -1)
    for _ in range(rounds):
        steps = np.zeros((len(x), height, width), np.intp)
        drawn = np.stack([rng.integers(-reach, reach, (rows, columns, 2)) for rng in rngs])[:, ::-1, ::-1]
        steps[:, reach + 1 : reach + 1 + rows, reach + 1 : reach + 1 + columns] = drawn @ np.array([1, width])
        origins = _origins(steps.reshape(len(x), -1))
        shuffled = np.take_along_axis(shuffled, origins[:, None], 2)
    return gaussian_filter(shuffled.reshape(x.shape), sigmas, mode="nearest")


def _origins(steps: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each pixel's value comes from when, last pixel first, each takes the value that is `steps` (N, pixels)
    further on by then. A pixel further on has changed before, so its own origin is asked for, in ever longer jumps."""
    first = np.arange(0, steps.size, steps.shape[1])[:, None]
    origins = (first + np.arange(steps.shape[1]) + steps).ravel()
    changed = steps.ravel() > 0
    pending = np.flatnonzero(changed)
    while len(pending):
        reached = origins[pending]
        origins[pending], changed[pending] = origins[reached], changed[reached]
        pending = pending[changed[pending]]
    return origins.reshape(steps.shape) - first


def motion_blur(x: Array, rngs: Sequence[np.random.Generator], radius: float, sigma: float) -> Array:
    return smear(x, [rng.uniform(-45, 45) for rng in rngs], radius, sigma)


def smear(x: Array, angles: Sequence[float], radius: float, sigma: float) -> Array:
    """Half a Gaussian along a line at an angle in degrees, as ImageMagick's MotionBlurImage."""
    taps = np.exp(-(np.arange(2 * ceil(radius) + 1) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).astype(np.float32)
    height, width = x.shape[2:]
    pad = len(taps)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")
    smeared = np.zeros_like(x)
    for out, image, angle in zip(smeared, padded, np.deg2rad(angles)):
        for i, tap in enumerate(taps):
            top, left = pad + ceil(i * np.sin(angle) - 0.5), pad + ceil(i * np.cos(angle) - 0.5)
            out += tap * image[:, top : top + height, left : left + width]
    return smeared


def zoom_blur(x: Array, rngs: Sequence[np.random.Generator], stop: float, step: float) -> Array:
    """The mean of the image and its enlargements by 1 to `stop`."""
    factors = np.arange(1, stop, step)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # torch enlarges channels-last faster
    return (x + sum(enlarge(x, factor) for factor in factors)) / (len(factors) + 1)


def enlarge(x: Array, factor: float) -> Array:
    """The middle of (N, C, H, W), enlarged to the same shape."""
    sides = x.shape[2:]
    cut = [ceil(side / factor) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, cut))
    middle = torch.from_numpy(x[:, :, top : top + cut[0], left : left + cut[1]])
    larger = F.interpolate(middle, [round(part * factor) for part in cut], mode="bilinear", align_corners=True).numpy()
    top, left = ((have - side) // 2 for have, side in zip(larger.shape[2:], sides))
    return larger[:, :, top : top + sides[0], left : left + sides[1]]
