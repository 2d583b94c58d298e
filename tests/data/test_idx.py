"""Idx files as the page of MNIST describes them, made here byte by byte."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from resnetkit.data.datasets import open_dataset, with_test
from resnetkit.errors import ResnetkitError

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist lies


def images_file(images):
    return struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()


def labels_file(labels):
    return struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels)


def made(seed, count):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 6, 5), dtype=np.uint8), [(i * 3) % 7 + 1 for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    for split, seed, count in (("train", 0, 21), ("t10k", 1, 8)):
        images, labels = made(seed, count)
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(images_file(images))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(labels_file(labels))
    return tmp_path


@pytest.mark.parametrize("form", ["plain", "gzip", "dots", "raw", "one file"])
def test_images_and_labels_are_those_written(folder, form):
    source = folder
    for file in sorted(folder.iterdir()):
        if form == "gzip":
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        elif form == "dots":
            file.rename(folder / file.name.replace("-idx", ".idx"))
        elif form == "raw":
            (folder / "raw").mkdir(exist_ok=True)
            file.rename(folder / "raw" / file.name)
    if form == "one file":
        source = folder / "t10k-labels-idx1-ubyte"
    dataset = open_dataset(source)
    assert dataset.name == folder.name
    assert dataset.classes == [str(i) for i in range(1, 8)]
    for split, seed, count in (("train", 0, 21), ("test", 1, 8)):
        images, labels = made(seed, count)
        part = dataset.parts[split]
        assert torch.equal(part.images, torch.from_numpy(images)[:, None])
        assert [int(dataset.classes[i]) for i in part.labels] == labels


def test_training_images_alone_are_split_for_you(folder):
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (folder / name).unlink()
    assert {name: len(part) for name, part in with_test(open_dataset(folder)).parts.items()} == {"train": 14, "test": 7}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], "630 bytes announced, only 629 there"),
        ("train-images-idx3-ubyte", lambda data: data + b"x", "630 bytes announced, more there"),
        ("train-images-idx3-ubyte", lambda data: b"\0\0\x0d\3" + data[4:], "it begins with 00000d03"),
        ("train-images-idx3-ubyte", lambda data: b"", "it begins with nothing"),
        ("train-images-idx3-ubyte", lambda data: data[:4] + b"\xff" * 12 + data[16:], "which no set is"),
        ("train-labels-idx1-ubyte", lambda data: labels_file([1] * 20), "20 labels for 21 images"),
        ("t10k-labels-idx1-ubyte", lambda data: labels_file([9] * 8), "label 9 is one that training does not know"),
        ("t10k-labels-idx1-ubyte", None, "the test labels file is missing"),
    ],
)
def test_damage_is_named(folder, name, change, says):
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(ResnetkitError, match=says):
        open_dataset(folder)


def test_a_cut_gzip_is_named(folder):
    file = folder / "train-images-idx3-ubyte"
    (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes())[:300])
    file.unlink()
    with pytest.raises(ResnetkitError, match="images-idx3-ubyte.gz: a damaged file"):
        open_dataset(folder)


@pytest.mark.slow
def test_fashion_mnist():
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    dataset = open_dataset(FASHION)
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 60_000, "test": 10_000}
    assert dataset.parts["train"].labels.bincount().tolist() == [6000] * 10  # Xiao et al. 2017, section 2
    assert dataset.parts["test"].labels.bincount().tolist() == [1000] * 10
    assert dataset.parts["train"].images.float().mean() / 255 == pytest.approx(0.2860, abs=1e-4)
