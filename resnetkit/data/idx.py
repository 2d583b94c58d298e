"""MNIST-style idx files: train-images-idx3-ubyte and its three companions, gzipped or not.

Layout: http://yann.lecun.com/exdb/mnist/, "file formats". Fashion-MNIST and KMNIST come in the same.
"""

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from resnetkit.data.parts import Dataset, Part
from resnetkit.errors import ResnetkitError

NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
MAX_PIXELS = 2**32  # bytes in memory; MNIST has 2**25.5

Files = dict[tuple[str, str], Path]  # by split and by images or labels


def files(path: Path) -> Files | None:
    """The idx files in a folder, or beside one that is named; None where it holds no training images."""
    if not path.is_dir() and not NAME.fullmatch(path.name):
        return None
    found: Files = {}
    for file in sorted(path.iterdir() if path.is_dir() else path.parent.iterdir()):
        if (name := NAME.fullmatch(file.name)) and file.is_file():
            found.setdefault(("train" if name[1] == "train" else "test", name[2]), file)
    return found if ("train", "images") in found else None


def idx(name: str, found: Files) -> Dataset:
    """Grey images (N, 1, H, W); a class for every number among the training labels. Raises ResnetkitError for files
    that are missing, damaged or do not fit together."""
    arrays = {}
    for split in ("train", "test"):
        if (split, "images") not in found and (split, "labels") not in found:
            continue
        for kind in ("images", "labels"):
            if (split, kind) not in found:
                raise ResnetkitError(f"{name}: the {split} {kind} file is missing; four files make a set")
        images, labels = (_read(found[split, kind], kind) for kind in ("images", "labels"))
        if len(images) != len(labels):
            raise ResnetkitError(f"{found[split, 'labels']}: {len(labels)} labels for {len(images)} images")
        arrays[split] = images[:, None], labels
    numbers = np.unique(arrays["train"][1])
    parts = {}
    for split, (images, labels) in arrays.items():
        unknown = np.setdiff1d(labels, numbers)
        if len(unknown):
            raise ResnetkitError(f"{found[split, 'labels']}: label {unknown[0]} is one that training does not know")
        places = torch.from_numpy(np.searchsorted(numbers, labels).astype(np.int64))
        title = split if "test" in arrays else "all"
        parts[title] = Part(torch.from_numpy(images), places, [f"{split}#{i}" for i in range(len(labels))])
    return Dataset(name, [str(number) for number in numbers], parts)


def _read(path: Path, kind: str) -> np.ndarray:
    """uint8 (N, H, W) or (N,). The magic number says uint8 (8) and how many sides follow, each a big-endian int32."""
    sides = 3 if kind == "images" else 1
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return _array(path, file.read, kind, sides)
    except (OSError, EOFError, zlib.error) as error:
        raise ResnetkitError(f"{path}: a damaged file ({error}); download it again") from error


def _array(path: Path, read: Callable[[int], bytes], kind: str, sides: int) -> np.ndarray:
    header = read(4 + 4 * sides)
    if header[:4] != bytes((0, 0, 8, sides)) or len(header) != 4 + 4 * sides:
        raise ResnetkitError(f"{path}: no idx file of {kind}: it begins with {header[:4].hex() or 'nothing'}")
    shape = [int(side) for side in np.frombuffer(header[4:], ">u4")]
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= MAX_PIXELS:
        raise ResnetkitError(f"{path}: its header says {' x '.join(map(str, shape))}, which no set is")
    data = read(count)
    if len(data) != count or read(1):
        size = "more" if len(data) == count else f"only {len(data):,}"
        raise ResnetkitError(f"{path}: {count:,} bytes announced, {size} there; download it again")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
