"""Colour and shape policies on single images. Each takes its randomness from a generator that is the sample's own."""

from collections.abc import Callable
from random import Random

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

FILL = 128  # grey where a turned or shifted image has no pixel
LEVELS = 31  # strengths of TrivialAugment and RandAugment, 0 to 30
AUGMIX_CHAINS, AUGMIX_LEVEL = 3, 9  # the paper's width 3, and its severity 3 of 10 in these levels

Operation = Callable[[Image.Image, float], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    fill = FILL if image.mode == "L" else (FILL,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill)


def _shear_x(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, (1, amount, -amount * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, (1, 0, 0, amount, 1, -amount * image.width / 2))


def _translate_x(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, (1, 0, round(amount * image.width), 0, 1, 0))


def _translate_y(image: Image.Image, amount: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, round(amount * image.height)))


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=FILL if image.mode == "L" else (FILL,) * 3)


# The operation and what it is given at full strength; all but those in UNSIGNED draw a sign too. The ranges are
# those of RandAugment (Cubuk et al. 2020), with shifts as shares of the side.
OPERATIONS: dict[str, tuple[Operation, float]] = {
    "identity": (lambda image, amount: image, 0.0),
    "shear_x": (_shear_x, 0.3),
    "shear_y": (_shear_y, 0.3),
    "translate_x": (_translate_x, 0.32),
    "translate_y": (_translate_y, 0.32),
    "rotate": (_rotate, 30.0),
    "brightness": (lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount), 0.9),
    "colour": (lambda image, amount: ImageEnhance.Color(image).enhance(1 + amount), 0.9),
    "contrast": (lambda image, amount: ImageEnhance.Contrast(image).enhance(1 + amount), 0.9),
    "sharpness": (lambda image, amount: ImageEnhance.Sharpness(image).enhance(1 + amount), 0.9),
    "posterize": (lambda image, amount: ImageOps.posterize(image, 8 - round(amount)), 4.0),
    "solarize": (lambda image, amount: ImageOps.solarize(image, round(255 - amount)), 255.0),
    "autocontrast": (lambda image, amount: ImageOps.autocontrast(image), 0.0),
    "equalize": (lambda image, amount: ImageOps.equalize(image), 0.0),
}
UNSIGNED = {"identity", "posterize", "solarize", "autocontrast", "equalize"}
# AugMix leaves out what overlaps with the corruptions it is measured on (Hendrycks et al. 2020, section 3).
AUGMIX_OPERATIONS = [n for n in OPERATIONS if n not in ("identity", "brightness", "colour", "contrast", "sharpness")]


def apply(image: Image.Image, name: str, level: float, sign: int = 1) -> Image.Image:
    """One operation at a `level` of 0 to 30, in the direction of `sign` where it has two."""
    operation, full = OPERATIONS[name]
    return operation(image, full * level / (LEVELS - 1) * (1 if name in UNSIGNED else sign))


def trivial_augment(image: Image.Image, random: Random) -> Image.Image:
    """One operation at one strength, both uniform (Müller & Hutter 2021, TrivialAugment; the RA range of strengths)."""
    return apply(image, random.choice(list(OPERATIONS)), random.randrange(LEVELS), random.choice((-1, 1)))


def rand_augment(image: Image.Image, random: Random, level: int) -> Image.Image:
    """Two operations at one strength (Cubuk et al. 2020, RandAugment)."""
    for _ in range(2):
        image = apply(image, random.choice(list(OPERATIONS)), level, random.choice((-1, 1)))
    return image


def aug_mix(image: Image.Image, random: Random) -> Image.Image:
    """A mean of chains of one to three operations, mixed with the image itself (Hendrycks et al. 2020, algorithm 1,
    Dirichlet and Beta of 1); without the consistency loss."""
    original = np.asarray(image, dtype=np.float32)
    weights = np.array([random.expovariate(1) for _ in range(AUGMIX_CHAINS)])  # normalised: a flat Dirichlet
    mixed = np.zeros_like(original)
    for weight in weights / weights.sum():
        chain = image
        for _ in range(random.randint(1, 3)):
            level = random.uniform(0, AUGMIX_LEVEL)
            chain = apply(chain, random.choice(AUGMIX_OPERATIONS), level, random.choice((-1, 1)))
        mixed += weight * np.asarray(chain, dtype=np.float32)
    share = random.random()
    return Image.fromarray((share * original + (1 - share) * mixed).round().astype(np.uint8))


def apply_policy(image: Tensor, policy: str, random: Random, level: int) -> Tensor:
    """uint8 (C, H, W) of one or three channels -> the same, changed by a policy: trivial, rand or augmix. The `level`
    of 0 to 30 is that of rand; the others draw theirs."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)
    if policy == "rand":
        changed = rand_augment(picture, random, level)
    else:
        changed = {"trivial": trivial_augment, "augmix": aug_mix}[policy](picture, random)
    return torch.from_numpy(np.array(changed).reshape(pixels.shape)).permute(2, 0, 1)


def erase(image: Tensor, random: Random) -> Tensor:
    """uint8 (C, H, W) with one box of noise, a fiftieth to a third of the area (Zhong et al. 2017, section 3.2)."""
    rows, columns, noise = box_of_noise(tuple(image.shape), random)
    erased = image.clone()
    erased[:, rows, columns] = torch.from_numpy(noise)
    return erased


def box_of_noise(shape: tuple[int, ...], random: Random) -> tuple[slice, slice, np.ndarray]:
    """Where `erase` puts its box in an image (C, H, W), and what: uint8 (C, h, w)."""
    channels, height, width = shape
    area, aspect = random.uniform(0.02, 1 / 3) * height * width, 0.3 ** random.uniform(-1, 1)
    box_height = min(height, max(1, round((area * aspect) ** 0.5)))
    box_width = min(width, max(1, round((area / aspect) ** 0.5)))
    top, left = random.randint(0, height - box_height), random.randint(0, width - box_width)
    noise = np.frombuffer(bytearray(random.randbytes(channels * box_height * box_width)), np.uint8)
    box = slice(top, top + box_height), slice(left, left + box_width)
    return *box, noise.reshape(channels, box_height, box_width)
