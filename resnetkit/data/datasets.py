"""Labelled images in the layouts people have: digits, class folders, Parquet, CIFAR archives."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.data import cifar
from resnetkit.data.split import stratified
from resnetkit.errors import ResnetkitError, did_you_mean

NAMED = ("digits",)
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm".split())
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
TEST_SHARE = 0.2  # of a set that has no held-out part of its own


@dataclass
class Part:
    """One split. `images` is uint8 (N, C, H, W), or N encoded images as paths or bytes."""

    images: Tensor | Sequence[Path | bytes]
    labels: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Tensor) -> "Part":
        chosen = indices.tolist()
        images = self.images[indices] if isinstance(self.images, Tensor) else [self.images[i] for i in chosen]
        return Part(images, self.labels[indices], [self.names[i] for i in chosen])


@dataclass
class Dataset:
    """Parts by name: train, val and test as the data has them, or `all` where it is not split. Class names in label
    order, and the images left out with the reason. `recipe` is that of a named set."""

    name: str
    classes: list[str]
    parts: dict[str, Part]
    bad: list[tuple[str, str]] = field(default_factory=list)
    recipe: str | None = None


def open_dataset(source: str | Path) -> Dataset:
    """Read a named set, a folder, Parquet or a CIFAR archive. Raises ResnetkitError where there is none."""
    path = Path(source)
    if not path.exists():
        if str(source) in NAMED:
            return digits()
        raise ResnetkitError(f"no dataset {str(source)!r}: no such path, and the named sets are {', '.join(NAMED)}")
    if files := _parquet_files(path):
        return parquet(path.name, files)
    if members := cifar.members(path):
        return Dataset(path.name, *_from_cifar(members))
    if path.is_dir():
        return folder(path)
    raise ResnetkitError(f"{path}: not a set we read: a folder of class folders, Parquet, or a CIFAR-10/100 archive")


def with_test(dataset: Dataset) -> Dataset:
    """The dataset ready for training: one that is not split has a fifth of each class set apart as `test`, the same on
    every machine. Raises ResnetkitError for a set that cannot train."""
    parts = dataset.parts
    if "all" in parts:
        chosen = stratified(parts["all"].labels, TEST_SHARE, seed=0)
        masks = {"train": ~chosen, "test": chosen}
        parts = {name: parts["all"].take(mask.nonzero()[:, 0]) for name, mask in masks.items()}
    if "train" not in parts:
        raise ResnetkitError(f"{dataset.name}: no training images; parts found: {', '.join(parts) or 'none'}")
    if "val" not in parts and len(parts.get("test", ())) == 0:
        raise ResnetkitError(f"{dataset.name}: too few images to set any apart for the test; two a class are needed")
    if len(dataset.classes) < 2:
        found = f"only {dataset.classes[0]!r}" if dataset.classes else "none"
        raise ResnetkitError(f"{dataset.name}: two classes are needed; found {found}")
    return replace(dataset, parts=parts)


def digits() -> Dataset:
    """The 1,797 handwritten digits of scikit-learn's wheel, 8x8, 17 grey levels stretched to 0..255."""
    package = find_spec("sklearn")
    if package is None or not package.origin:
        raise ResnetkitError("the digits come inside scikit-learn; pip install scikit-learn")
    # The file itself: importing the package takes longer than training's first epochs.
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64)
    images = torch.from_numpy((table[:, :64] * 255 / 16).round().astype(np.uint8)).reshape(-1, 1, 8, 8)
    names = [f"digits/{i:04d}" for i in range(len(images))]
    part = Part(images, torch.from_numpy(table[:, 64].copy()), names)
    return with_test(Dataset("digits", [str(digit) for digit in range(10)], {"all": part}, recipe="digits"))


def folder(root: Path) -> Dataset:
    """Class folders, or any of train/, val/ and test/ of class folders. Names are paths below `root`."""
    splits: dict[str, Path] = {}
    for place in _folders(root):
        split = SPLITS.get(place.name.lower())
        if split and _folders(place):  # else it is a class of that name
            if split in splits:
                raise ResnetkitError(f"{root}: {splits[split].name} and {place.name} are the same part; keep one")
            splits[split] = place
    splits = splits or {"all": root}
    classes = [p.name for p in _folders(splits["train"] if "train" in splits else next(iter(splits.values())))]
    parts = {}
    for split, place in splits.items():
        unknown = [p.name for p in _folders(place) if p.name not in classes]
        if unknown:
            near = did_you_mean(unknown[0], classes)
            raise ResnetkitError(f"{place / unknown[0]}: a class that training does not know; {near}")
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = sorted(p for p in (place / name).rglob("*") if is_image(p))
            if not found and split in ("train", "all"):
                raise ResnetkitError(f"{place / name}: the class has no image; add some or remove the folder")
            paths += found
            labels += [label] * len(found)
        if paths:
            parts[split] = Part(paths, torch.tensor(labels), [str(p.relative_to(root)) for p in paths])
    if not parts:
        raise ResnetkitError(f"{root}: no class folders with images in it")
    return Dataset(root.resolve().name, classes, parts)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.rglob("*.parquet"))


def parquet(name: str, files: list[Path]) -> Dataset:
    """Hugging Face's layout: an image column of {bytes, path}, a label column, class names in the schema metadata.

    A file belongs to the split whose name begins its own, or is its folder's.
    """
    import pyarrow.parquet as pq

    splits = {file: _split_of(file) for file in files}
    known = set(splits.values()) - {None}
    tables: dict[str, list[tuple[Path, Any]]] = {}
    for file, split in splits.items():
        if split is None and known:
            raise ResnetkitError(f"{file}: which part is it? Begin its name with train, val or test, as the others'")
        try:
            table = pq.read_table(file)
        except Exception as error:
            raise ResnetkitError(f"{file}: not readable as Parquet: {str(error).splitlines()[0]}") from error
        tables.setdefault(split or "all", []).append((file, table))
    image_column, label_column, classes = _columns(*next(iter(tables.values()))[0])
    values = {split: _column(pairs, label_column) for split, pairs in tables.items()}
    index: dict[Any, int] = {label: i for i, label in enumerate(classes)} | {i: i for i in range(len(classes))}
    if not classes:
        found = {value for column in values.values() for value in column if value is not None}
        ranked = sorted(found) if all(isinstance(v, int) for v in found) else sorted(found, key=str)
        classes, index = [str(v) for v in ranked], {v: i for i, v in enumerate(ranked)}
    parts = {}
    for split, pairs in tables.items():
        images = [row["bytes"] if isinstance(row, dict) else row for row in _column(pairs, image_column)]
        names = [f"{file.name}#{i}" for file, table in pairs for i in range(table.num_rows)]
        for row_name, image, value in zip(names, images, values[split]):
            if not isinstance(image, bytes):
                raise ResnetkitError(f"{row_name}: the image column holds no bytes; embed the images in the file")
            if value not in index:
                raise ResnetkitError(f"{row_name}: label {value!r} is none of the {len(classes)} classes")
        parts[split] = Part(images, torch.tensor([index[value] for value in values[split]]), names)
    return Dataset(name, classes, parts)


def _split_of(file: Path) -> str | None:
    words = (re.split(r"[-_.]", file.name)[0].lower(), file.parent.name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _column(pairs: list[Any], column: str) -> list[Any]:
    for file, table in pairs:
        if column not in table.column_names:
            raise ResnetkitError(f"{file}: no column {column!r}, which the first file has")
    return [value for _, table in pairs for value in table.column(column).to_pylist()]


def _columns(file: Path, table: Any) -> tuple[str, str, list[str]]:
    """The image and the label column, and the class names where the metadata has them."""
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}
    images = [n for n in table.column_names if kinds.get(n) == "Image" or n in ("image", "img", "bytes")]
    labels = [n for n in table.column_names if kinds.get(n) == "ClassLabel" or n in ("label", "labels")]
    if not images or not labels:
        missing = "image" if not images else "label"
        raise ResnetkitError(f"{file}: no {missing} column; columns: {', '.join(table.column_names)}")
    label = "label" if "label" in labels else labels[0]
    return images[0], label, list(features.get(label, {}).get("names", []))


def _from_cifar(members: dict[str, Any]) -> tuple[list[str], dict[str, Part]]:
    classes, arrays = cifar.read(members)
    parts = {}
    for split, (images, labels) in arrays.items():
        names = [f"{split}#{i}" for i in range(len(labels))]
        parts[split] = Part(torch.from_numpy(images), torch.from_numpy(labels), names)
    return classes, parts
