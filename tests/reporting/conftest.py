"""Run folders: a real one on hostile names and poor data, and small ones written by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnetkit as rk
from resnetkit.tables import csv_text

HOSTILE = "<script>alert(1)<"  # as much of markup as a folder name may hold
QUOTED = "\"'><img src=x onerror=alert(1)>&amp;"


def photo(path: Path, seed: int, light: int) -> None:
    """80x96 pixels of noise around a level near `light`, so that two classes can be told apart for the most part."""
    random = np.random.default_rng(seed)
    pixels = random.integers(-40, 40, (80, 96, 3)) + random.normal(light, 25)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Two classes in train/ and val/, with a file that is no image, a copy in both parts and one in both classes."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for part, n in (("train", 12), ("val", 6)):
        for level, name in ((100, HOSTILE), (150, QUOTED)):
            for i in range(n):
                photo(root / part / name / f"{i} & <b>.png", 1000 * level + 10 * n + i, level)
    (root / "train" / QUOTED / "broken <i>.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    leak = (root / "train" / HOSTILE / "0 & <b>.png").read_bytes()
    (root / "val" / HOSTILE / "leak.png").write_bytes(leak)
    (root / "train" / QUOTED / "both.png").write_bytes((root / "train" / HOSTILE / "1 & <b>.png").read_bytes())
    return root


@pytest.fixture(scope="session")
def run(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "photo run <1>"
    settings = {"model": "resnet8_cifar", "img_size": 32, "epochs": 5, "lr": 0.05, "batch_size": 8}
    return rk.train(photos, out=out, workers=0, **settings).folder


def write_run(
    folder: Path, classes: list[str], answers: list[tuple[str, str, str, float]] | None, data: str = "gone"
) -> Path:
    """A run folder by hand, without a model; `answers` are lines of predictions.csv, None for a run not finished."""
    listed = [(path, label, "test", str(i)) for i, (path, label, _, _) in enumerate(answers or [])]
    texts = {
        "command.json": json.dumps({"argv": ["resnet"], "data": data, "max_bad": 0.1, "device": "cpu"}),
        "environment.json": json.dumps(
            {"python": "3", "packages": {}, "commit": "unknown", "platform": "", "processor": "", "threads": 2}
        ),
        "classes.json": json.dumps(classes),
        "preprocessing.json": json.dumps({"size": [32, 32], "resize": 36}),
        "recipe.toml": 'model = "resnet8_cifar"\nepochs = 4\nlr = 0.1\n',
        "split.csv": csv_text(("path", "class", "split", "hash"), listed),
    }
    if answers is not None:
        n, right = len(answers), sum(label == predicted for _, label, predicted, _ in answers)
        figures = {"split": "test", "top1": right / n, "top1_interval": [0.1, 0.9], "top5": 1.0, "loss": 1.0}
        texts["evaluation/metrics.json"] = json.dumps(figures | {"ece": 0.1, "n": n})
        texts["evaluation/predictions.csv"] = csv_text(("path", "class", "predicted", "probability"), answers)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
