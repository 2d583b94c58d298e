"""Labelled images in the forms people have: each is told by its looks and read by its own module."""

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from resnetkit.data import cifar, idx, listed
from resnetkit.data.archives import archive, shards
from resnetkit.data.folders import folder
from resnetkit.data.image_files import scan
from resnetkit.data.parquet import beside_pictures, parquet
from resnetkit.data.parts import Dataset as Dataset
from resnetkit.data.parts import Part as Part
from resnetkit.data.parts import numbered_where_equal, require_plain_names
from resnetkit.data.split import stratified
from resnetkit.errors import ResnetkitError

NAMED = ("digits",)
IDX = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
DOWNLOADS = {
    "cifar10": "cifar-10-python.tar.gz and give that file",
    "cifar100": "cifar-100-python.tar.gz and give that file",
    "mnist": f"{IDX} into a folder and give that",
    "fashionmnist": f"{IDX} into a folder and give that",
}  # well-known sets that are read and do not come along, by their names in small letters
TEST_SHARE = 0.2  # of a set that has no held-out part of its own
KINDS = (
    "a folder of class folders, a CSV (`labels.csv`, `labels.csv:COLUMN` where several columns hold labels, or "
    "`labels.csv:COLUMN,COLUMN` of 0 and 1) or a list of `path label` lines, Parquet (`PATH:COLUMN` likewise), "
    "a zip or tar of class folders, WebDataset shards, MNIST-style idx files, or a CIFAR-10/100 archive"
)


def absolute(source: str | Path) -> str:
    """What opens the same set from any folder."""
    if table := listed.find_list(str(source)):
        file, column = table
        return str(file.resolve()) + (f":{column}" if column else "")
    path, column = _with_column(str(source))
    return str(path.resolve()) + (f":{column}" if column else "") if path.exists() else str(source)


def open_dataset(source: str | Path) -> Dataset:
    """Read a named set or what lies at a path, in any of KINDS. Raises ResnetkitError where there is none."""
    try:
        path, column = _with_column(str(source))
        if table := listed.find_list(str(source)):
            return listed.listed(*table)
        if not path.exists():
            if str(source) in NAMED:
                return digits()
            if download := DOWNLOADS.get(re.sub(r"[\W_]", "", str(source)).lower()):
                raise ResnetkitError(f"no dataset {str(source)!r} here: it does not come along; download {download}")
            raise ResnetkitError(f"no dataset {str(source)!r}: no such path, and the named sets are {', '.join(NAMED)}")
        dataset = _open_folder(path, column) if path.is_dir() else _open_file(path, column)
    except OSError as error:
        raise ResnetkitError(f"{error.filename or source}: {error.strerror or error}") from error
    if dataset is None:
        raise ResnetkitError(f"{path}: not a set we read: {KINDS}")
    return dataset


def _with_column(source: str) -> tuple[Path, str | None]:
    """What PATH:COLUMN names where there is a PATH and none of the whole, else the source as a path."""
    path, _, column = source.rpartition(":")
    named = path and column and not Path(source).exists() and Path(path).exists()
    return (Path(path), column) if named else (Path(source), None)


def _open_file(path: Path, column: str | None) -> Dataset | None:
    if path.suffix == ".parquet":
        return parquet(path.name, path.parent, [path], column)
    _require_no_column(path, column)
    if idx_files := idx.files(path):
        return idx.idx(path.resolve().parent.name, idx_files)
    if members := cifar.members(path):
        return _from_cifar(path.name, members)
    return archive(path)


def _require_no_column(path: Path, column: str | None) -> None:
    if column is not None:
        raise ResnetkitError(f"{path}: no Parquet or CSV, so it has no column {column!r}")


def _open_folder(path: Path, column: str | None) -> Dataset:
    name = path.resolve().name
    found = scan(path)
    files = [file for file in found.others if file.suffix == ".parquet"]
    if found.images:
        files = beside_pictures(files)
    if files:
        return parquet(name, path, files, column)
    _require_no_column(path, column)
    if members := cifar.members(path):
        return _from_cifar(name, members)
    for place in (path, path / "raw", path / name / "raw"):  # the last two as torchvision unpacks it
        if place.is_dir() and (idx_files := idx.files(place)):
            return idx.idx(name, idx_files)
    if not found.images and (tars := [file for file in found.others if file.suffix == ".tar"]):
        return shards(name, path, tars)
    return folder(path, found)


def with_test(dataset: Dataset) -> Dataset:
    """The dataset ready for training: one that is not split, or has a train part alone, has a fifth of each class set
    apart as `test`, the same on every machine. Raises ResnetkitError for a set that cannot train."""
    parts = dataset.parts
    if "all" in parts or list(parts) == ["train"]:
        (whole,) = parts.values()
        chosen = stratified(whole.labels, TEST_SHARE, seed=0)
        masks = {"train": ~chosen, "test": chosen}
        parts = {name: whole.take(mask.nonzero()[:, 0]) for name, mask in masks.items()}
    if "train" not in parts:
        found = ", ".join(parts) or "none"
        cure = "a name with train, or without any part's word, is trained on"
        raise ResnetkitError(f"{dataset.name}: no training images; parts found: {found}; {cure}")
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


def _from_cifar(name: str, members: cifar.Members) -> Dataset:
    classes, arrays = cifar.read(members)
    require_plain_names(name, classes)
    parts = {}
    for split, (images, labels) in arrays.items():
        names = [f"{split}#{i}" for i in range(len(labels))]
        parts[split] = Part(torch.from_numpy(images), torch.from_numpy(labels), names)
    return Dataset(name, numbered_where_equal(classes), parts)
