"""Corruptions by weather. Images are float32 (N, C, H, W) in 0..1, with one generator each."""

from collections.abc import Sequence

import numpy as np

from resnetkit.data.corrupt_blur import Array, cut_levels, enlarge, smear

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)[:, None, None]
ICE = np.array([[0.28, 0.38, 0.43], [0.86, 0.92, 0.97]], dtype=np.float32)  # the darkest and the palest mean colour
FILM, NEEDLES = 0.06, 0.06  # standard deviations of the two parts of ice
ROOTS = 0.01  # of the pixels, for needles in each of three directions


def snow(
    x: Array,
    rngs: Sequence[np.random.Generator],
    mean: float,
    spread: float,
    size: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> Array:
    """Smeared flakes before a whitened image, of which a `share` stays as it was."""
    flakes = np.stack([rng.normal(mean, spread, x.shape[2:]) for rng in rngs]).astype(np.float32)[:, None]
    flakes = enlarge(flakes, size)
    flakes = cut_levels(np.where(flakes < threshold, 0, flakes.clip(0, 1)))
    falling = (smear(flakes, [rng.uniform(-135, -45) for rng in rngs], radius, sigma) * 255).round() / 255
    grey = (x * LUMA).sum(1, keepdims=True) if x.shape[1] == 3 else x
    whitened = np.maximum(x, grey * 1.5 + 0.5)
    return share * x + (1 - share) * whitened + falling + falling[:, :, ::-1, ::-1]


def frost(x: Array, rngs: Sequence[np.random.Generator], share: float, ice: float, decay: float) -> Array:
    """The image and a layer of ice. The authors cut theirs from photographs; this one is made: a grainy film and
    needles in three directions. Its mean colour and how that spreads, its contrast and how that lies in fine and coarse
    detail are about those of cuts of their photographs."""
    height, width = x.shape[2:]
    film = plasma(rngs, max(x.shape[2:]), decay)[:, None, :height, :width]
    layer = FILM * _standard(film) + NEEDLES * _standard(_needles(rngs, height, width))
    pale = np.array([rng.uniform() for rng in rngs], dtype=np.float32)[:, None]
    colour = (ICE[0] + pale * (ICE[1] - ICE[0]))[:, :, None, None]
    if x.shape[1] == 1:
        colour = (colour * LUMA).sum(1, keepdims=True)
    return share * x + ice * np.clip(colour + layer, 0, 1)


def _needles(rngs: Sequence[np.random.Generator], height: int, width: int) -> Array:
    """(N, 1, H, W); in each image the directions are 60 degrees apart, as ice grows."""
    needles = np.zeros((len(rngs), 1, height, width), dtype=np.float32)
    reach = min(height, width) / 12
    turns = [rng.uniform(0, 60) for rng in rngs]
    for direction in (0, 60, 120):
        roots = np.stack([rng.random((height, width)) for rng in rngs])[:, None] < ROOTS
        roots[..., [0, -1], :] = roots[..., [0, -1]] = False  # the edge would be drawn out into a fan
        needles += smear(roots.astype(np.float32), [turn + direction for turn in turns], reach, reach)
    return needles


def _standard(x: Array) -> Array:
    """(N, 1, H, W) with mean 0 and standard deviation 1 in each image; what is flat becomes 0."""
    spread = x.std((1, 2, 3), keepdims=True)
    return (x - x.mean((1, 2, 3), keepdims=True)) / np.where(spread > 0, spread, 1)


def fog(x: Array, rngs: Sequence[np.random.Generator], thickness: float, decay: float) -> Array:
    height, width = x.shape[2:]
    brightest = x.max((1, 2, 3), keepdims=True)
    layer = thickness * plasma(rngs, max(x.shape[2:]), decay)[:, None, :height, :width]
    return (x + layer) * brightest / (brightest + thickness)


def plasma(rngs: Sequence[np.random.Generator], least: int, decay: float) -> Array:
    """Clouds (N, side, side) in 0..1, `side` the next power of two from `least` on, by the diamond-square algorithm:
    points between points are their mean and a random part, which gets smaller by `decay` from scale to scale."""
    side = 1 << max(1, (least - 1).bit_length())
    clouds = np.zeros((len(rngs), side, side), dtype=np.float32)
    step, rough = side, 100.0

    def between(sums: Array) -> Array:
        drawn = np.stack([rng.uniform(-rough, rough, sums.shape[1:]) for rng in rngs])
        return sums / 4 + rough * drawn.astype(np.float32)

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        centres = between(pairs + np.roll(pairs, -1, 2))
        clouds[:, half::step, half::step] = centres
        clouds[:, ::step, half::step] = between(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 2))
        clouds[:, half::step, ::step] = between(centres + np.roll(centres, 1, 2) + corners + np.roll(corners, -1, 1))
        step, rough = half, rough / decay
    clouds -= clouds.min((1, 2), keepdims=True)
    return clouds / clouds.max((1, 2), keepdims=True)


def brightness(x: Array, rngs: Sequence[np.random.Generator], more: float) -> Array:
    """The value of hue, saturation and value is raised, 1 at most."""
    value = x.max(1, keepdims=True)
    raised = np.minimum(value + more, 1)
    return np.where(value > 0, x * (raised / np.maximum(value, 1e-6)), raised)
