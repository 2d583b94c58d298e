"""Corruptions of single pixels. Images are float32 (N, C, H, W) in 0..1, with one generator each."""

from collections.abc import Sequence

import numpy as np

from resnetkit.data.corrupt_blur import Array


def gaussian_noise(x: Array, rngs: Sequence[np.random.Generator], spread: float) -> Array:
    return x + np.stack([rng.normal(0, spread, x.shape[1:]) for rng in rngs])


def shot_noise(x: Array, rngs: Sequence[np.random.Generator], photons: float) -> Array:
    """Where a white pixel counts so many photons."""
    return np.stack([rng.poisson(image * photons) for image, rng in zip(x, rngs)]) / photons


def impulse_noise(x: Array, rngs: Sequence[np.random.Generator], share: float) -> Array:
    """That share of the values becomes black or white."""
    hit, white = (
        np.stack(drawn) for drawn in zip(*[(rng.random(x.shape[1:]), rng.random(x.shape[1:])) for rng in rngs])
    )
    return np.where(hit <= share, white <= 0.5, x)
