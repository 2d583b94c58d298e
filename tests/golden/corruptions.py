"""Writes corruptions.npz: what the programs of Hendrycks & Dietterich 2019 make of a picture.

    python tests/golden/corruptions.py CHECKOUT FROSTS

CHECKOUT is github.com/hendrycks/robustness; FROSTS a folder with its frost photographs. Their programs need
numpy<1.24, scipy<1.11, scikit-image<0.20, opencv-python-headless<4.9 and Wand with ImageMagick 6; nothing of ours is
imported.
"""

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = (
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness "
    "contrast elastic_transform pixelate jpeg_compression"
).split()
PROGRAMS = {224: "ImageNet-C/imagenet_c/imagenet_c/corruptions.py", 32: "ImageNet-C/create_c/make_cifar_c.py"}
KEPT = 16  # rows and columns of each outcome that are stored
SEEDS = 10  # over which distances are means


def picture(side: int) -> np.ndarray:
    """uint8 (side, side, 3): a sky, a sun, a striped field and a dark gate, in the tones of a photograph."""
    y, x = np.mgrid[0:side, 0:side] / side
    red = 0.45 + 0.35 * y + 0.05 * np.sin(9 * x)
    green = 0.55 + 0.2 * y * x
    blue = 0.85 - 0.55 * y
    pixels = np.stack([red, green, blue], 2)
    pixels[(x - 0.7) ** 2 + (y - 0.25) ** 2 < 0.02] = (0.98, 0.9, 0.6)
    stripes = (y > 0.6) & (np.sin(40 * (x + 0.5 * y)) > 0)
    pixels[stripes] *= 0.6
    pixels[(abs(x - 0.3) < 0.1) & (y > 0.3) & (y < 0.8)] = (0.12, 0.1, 0.14)
    grain = np.random.RandomState(0).normal(0, 0.02, pixels.shape)
    return (np.clip(pixels + grain, 0, 1) * 255).astype(np.uint8)


def kept(pixels: np.ndarray) -> np.ndarray:
    step = len(pixels) // KEPT
    return pixels[step // 2 :: step, step // 2 :: step]


def program(file: Path) -> dict:
    """The functions of one of their programs, without the part that reads a data set."""
    text = file.read_text().split("# /////////////// End Distortions")[0]
    lines = [line for line in text.splitlines() if "torch" not in line]
    names: dict = {"__name__": file.stem, "resource_filename": lambda _, name: Path(name).name}
    exec(compile("\n".join(lines), str(file), "exec"), names)
    return names


def main(checkout: Path, frosts: Path) -> None:
    written = {}
    os.chdir(frosts)
    for side, file in PROGRAMS.items():
        names = program(checkout / file)
        random_noise = names["sk"].util.random_noise
        clean = picture(side)
        outcomes, distances = [], []
        for kind in KINDS:
            for severity in range(1, 6):
                found = []
                for seed in range(SEEDS):
                    np.random.seed(seed)
                    names["sk"].util.random_noise = partial(random_noise, seed=seed)
                    found.append(np.uint8(names[kind](Image.fromarray(clean), severity)))
                outcomes.append(kept(found[0]))
                distances.append(np.mean((np.stack(found).astype(float) - clean) ** 2))
        written[f"outcome_{side}"] = np.stack(outcomes).reshape(len(KINDS), 5, KEPT, KEPT, 3)
        written[f"distance_{side}"] = np.array(distances).reshape(len(KINDS), 5)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **written)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
