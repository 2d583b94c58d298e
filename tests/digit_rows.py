"""Images of up to three handwritten digits side by side, labelled with the digits there: none, one or several."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from resnetkit.tables import csv_text


def draw_rows(count: int, digits: range, seed: int) -> list[tuple[np.ndarray, list[int]]]:
    """`count` images uint8 (8, 24) of the digits with these numbers in scikit-learn's set, and their classes."""
    source, random = load_digits(), np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        places = random.permutation(3)[: random.choice(4, p=[0.1, 0.2, 0.3, 0.4])]
        image, classes = random.uniform(0, 2, (8, 24)), set()  # no two alike, blank ones neither
        for place in places:
            which = int(random.integers(digits.start, digits.stop))
            image[:, 8 * place : 8 * place + 8] = source.images[which]
            classes.add(int(source.target[which]))
        drawn.append(((image * 255 / 16).round().astype(np.uint8), sorted(classes)))
    return drawn


def write_rows(folder: Path, train: int = 1500, test: int = 400) -> Path:
    """A CSV with a column `labels` and its images; no digit is in both parts."""
    folder.mkdir(parents=True)
    lines = []
    for split, count, digits in (("train", train, range(1300)), ("test", test, range(1300, 1797))):
        for i, (image, classes) in enumerate(draw_rows(count, digits, seed=count)):
            Image.fromarray(image).save(folder / f"{split}{i}.png")
            lines.append((f"{split}{i}.png", "|".join(map(str, classes)), split))
    (folder / "rows.csv").write_text(csv_text(("path", "labels", "split"), lines))
    return folder / "rows.csv"
