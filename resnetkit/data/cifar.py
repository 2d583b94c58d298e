"""CIFAR-10 and CIFAR-100 as their authors publish them: python (pickle) and binary, in a folder or a .tar.gz.

Layout: https://www.cs.toronto.edu/~kriz/cifar.html. The pickles are read as data: only arrays, strings and numbers
are built, and any other name in them is refused.
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.data.encoded import undamaged
from resnetkit.errors import ResnetkitError

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
Members = dict[str, Callable[[], bytes]]

CIFAR10_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
PYTHON = {"cifar10": (CIFAR10_BATCHES, ["test_batch"], "batches.meta"), "cifar100": (["train"], ["test"], "meta")}
BINARY = {
    "cifar10": ([f"{name}.bin" for name in CIFAR10_BATCHES], ["test_batch.bin"], "batches.meta.txt"),
    "cifar100": (["train.bin"], ["test.bin"], "fine_label_names.txt"),
}
PIXELS = 3 * 32 * 32
MAX_HELD = 2**29  # bytes of the files that are read of a tar; CIFAR's take 186 million, pickled again a half more


def members(path: Path) -> Members | None:
    """Readers by file name when `path` holds a CIFAR set (in it or one folder below), else None."""
    if path.is_dir():
        folders = [path, *sorted(p for p in path.glob("cifar-10*") if p.is_dir())]
        for folder in folders:
            found: Members = {p.name: p.read_bytes for p in folder.iterdir() if p.is_file()}
            if _layout(found):
                return found
        return None
    with undamaged(path):
        if not tarfile.is_tarfile(path):
            return None
        with tarfile.open(path) as archive:
            inside = {Path(m.name).name: m for m in archive if m.isfile()}
            layout = _layout(dict.fromkeys(inside, bytes))
            if not layout:
                return None
            # As they lie there: to go back in a compressed tar is to unpack it from its beginning.
            needed = dict(sorted(((n, inside[n]) for n in _files(*layout)), key=lambda own: own[1].offset_data))
            held = sum(member.size for member in needed.values())
            if held > MAX_HELD:
                raise ResnetkitError(
                    f"{path}: {held >> 20:,} MiB of batches, where CIFAR's are under 300; unpack it first"
                )
            # Read whole: a compressed archive has no random access, and nothing is written to disk.
            files = {name: archive.extractfile(member) for name, member in needed.items()}
            data = {name: file.read() for name, file in files.items() if file}
    return {name: partial(bytes, value) for name, value in data.items()}


def _layout(found: Members) -> tuple[str, bool] | None:
    for binary, layouts in ((False, PYTHON), (True, BINARY)):
        for kind, (train, test, meta) in layouts.items():
            if meta in found and any(name in found for name in train):
                missing = [name for name in (*train, *test) if name not in found]
                if missing:
                    raise ResnetkitError(
                        f"{kind}: {', '.join(missing)} is missing; unpack or download the archive again"
                    )
                return kind, binary
    return None


def _files(kind: str, binary: bool) -> list[str]:
    train, test, meta = (BINARY if binary else PYTHON)[kind]
    return [*train, *test, meta]


def read(found: Members) -> tuple[list[str], Arrays]:
    """Class names, and uint8 (N, 3, 32, 32) images with int64 labels for train and test."""
    layout = _layout(found)
    assert layout, "read() takes what members() returned"
    kind, binary = layout
    train, test, meta = (BINARY if binary else PYTHON)[kind]
    if binary:
        classes = _class_names(meta, found[meta](), None)
        label_bytes = 1 if kind == "cifar10" else 2
        parts = {
            split: [_binary(n, found[n](), label_bytes) for n in names]
            for split, names in (("train", train), ("test", test))
        }
    else:
        names_key = b"label_names" if kind == "cifar10" else b"fine_label_names"
        labels_key = b"labels" if kind == "cifar10" else b"fine_labels"
        classes = _class_names(meta, found[meta](), names_key)
        parts = {
            split: [_python(n, found[n](), labels_key) for n in names]
            for split, names in (("train", train), ("test", test))
        }
    arrays = {}
    for split, batches in parts.items():
        images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([labels for _, labels in batches])
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise ResnetkitError(f"{kind} {split}: a label outside 0..{len(classes) - 1}; the archive is damaged")
        arrays[split] = (images, labels)
    return classes, arrays


def _class_names(meta: str, data: bytes, key: bytes | None) -> list[str]:
    """The words of a text, or what a pickle has under `key`."""
    try:
        return data.decode().split() if key is None else [_text(name) for name in _unpickle(meta, data)[key]]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ResnetkitError(f"{meta}: not a list of class names; the archive is damaged") from error


def _binary(name: str, data: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % (label_bytes + PIXELS):
        raise ResnetkitError(f"{name}: {len(data)} bytes is not a whole number of images; the archive is damaged")
    rows = np.frombuffer(data, np.uint8).reshape(-1, label_bytes + PIXELS)
    return rows[:, label_bytes:].copy(), rows[:, label_bytes - 1].astype(np.int64)  # CIFAR-100: coarse, then fine


def _python(name: str, data: bytes, labels_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(name, data)
    images = batch.get(b"data")
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 2:
        with suppress(TypeError, ValueError, OverflowError):  # labels that are no numbers
            labels = np.asarray(batch.get(labels_key), np.int64)
            if images.shape == (*labels.shape, PIXELS):
                return images, labels
    raise ResnetkitError(f"{name}: not a CIFAR batch of uint8 rows of {PIXELS}; the archive is damaged")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows numpy arrays and nothing else that could run."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "numpy._core.multiarray"
        elif (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file does")
        return super().find_class(module, name)


def _unpickle(name: str, data: bytes) -> dict[bytes, Any]:
    try:
        record = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        raise ResnetkitError(f"{name}: refused: {error}") from error
    if not isinstance(record, dict):
        raise ResnetkitError(f"{name}: not a CIFAR batch; it holds a {type(record).__name__}")
    return {key if isinstance(key, bytes) else str(key).encode(): value for key, value in record.items()}
