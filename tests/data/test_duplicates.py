"""Copies are found, whatever was done to them, and different pictures are not taken for copies."""

import io
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.copies import find_copies
from resnetkit.data.datasets import Part, digits, open_dataset
from resnetkit.data.duplicates import connected, equal_groups, near_duplicates
from resnetkit.data.parts import Dataset
from resnetkit.data.preprocess import decode
from resnetkit.data.survey import portrait, survey
from tests.conftest import LargestTensor


def cloud(seed: int, side: int = 96) -> Image.Image:
    """A picture with the spectrum of photographs: coloured noise whose amplitude falls as 1/f."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(draw.normal(size=(3, side, side))) / frequency
    pixels = np.fft.ifft2(noise).real
    grey = pixels.mean(0)
    pixels = 0.3 * pixels + 0.7 * grey  # the channels of photographs are alike
    low, high = pixels.min(), pixels.max()
    return Image.fromarray(((pixels - low) / (high - low) * 255).astype(np.uint8).transpose(1, 2, 0))


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **how)
    return data.getvalue()


def thumbnail(data: bytes) -> torch.Tensor:
    return torch.from_numpy(portrait(decode(data, "rgb")).thumbnail)


def cropped(image: Image.Image, seed: int) -> Image.Image:
    draw = random.Random(seed)
    side = image.width
    width, height = (round(side * draw.uniform(0.9, 0.95)) for _ in "wh")
    left, top = draw.randint(0, side - width), draw.randint(0, side - height)
    return image.crop((left, top, left + width, top + height))


COPIES = {
    "smaller": lambda image, seed: encoded(image.resize((48, 48), Image.Resampling.BICUBIC)),
    "larger": lambda image, seed: encoded(image.resize((150, 120), Image.Resampling.LANCZOS)),
    "compressed": lambda image, seed: encoded(image, "JPEG", quality=50),
    "cropped": lambda image, seed: encoded(cropped(image, seed)),
    "darker": lambda image, seed: encoded(image.point(lambda v: v * 0.87)),
}


@pytest.fixture(scope="module")
def pictures():
    return [cloud(seed) for seed in range(80)]


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(pictures, kind):
    originals = [thumbnail(encoded(image)) for image in pictures]
    copies = [thumbnail(COPIES[kind](image, seed)) for seed, image in enumerate(pictures)]
    found = {(a, b) for a, b, _ in near_duplicates(torch.stack(originals + copies))}
    assert found == {(i, i + len(pictures)) for i in range(len(pictures))}


def test_a_few_images_are_enough(pictures):
    pair = [thumbnail(encoded(pictures[0])), thumbnail(encoded(pictures[0], "JPEG", quality=60))]
    (found,) = near_duplicates(torch.stack(pair))
    assert found[:2] == (0, 1) and found.score > 0.97


def test_a_large_set_is_never_held_as_floats():
    thumbnails = torch.randint(0, 256, (4096, 3, 32, 32), dtype=torch.uint8)
    with LargestTensor() as largest:
        near_duplicates(thumbnails)
    assert largest.bytes < 2 * thumbnails.nbytes


def test_flat_pictures_are_not_alike():
    flat = torch.arange(70, dtype=torch.uint8)[:, None, None, None].expand(70, 3, 32, 32).clone()
    flat[:, :, 5, 5] += 1  # what rounding may leave
    assert near_duplicates(flat) == []


def test_no_image_at_all():
    assert near_duplicates(torch.empty(0, 3, 32, 32, dtype=torch.uint8)) == []


def test_pictures_that_are_alike_by_nature_are_no_copies():
    """Handwritten digits: one seven is much like another, and no photo's measure would do."""
    images = digits().parts["train"].images[:800].expand(-1, 3, -1, -1)
    assert near_duplicates(torch.stack([torch.from_numpy(portrait(image).thumbnail) for image in images])) == []


def test_all_of_the_flowers_leaks_and_no_others(shared):
    """Real photos, with a copy of each validation image."""
    files = sorted((shared / "data/flowers").rglob("*.jpg"))
    held = [file for file in files if "val" in file.parts]
    thumbs = [thumbnail(file.read_bytes()) for file in files]
    kinds = ("smaller", "compressed", "cropped", "darker")
    for i, file in enumerate(held):
        with Image.open(file) as image:
            square = image.convert("RGB").resize((240, 240))
        thumbs.append(thumbnail(COPIES[kinds[i % 4]](square, i)))
    found = {(a, b) for a, b, _ in near_duplicates(torch.stack(thumbs))}
    planted = {(files.index(file), len(files) + i) for i, file in enumerate(held)}
    assert len(found & planted) >= 0.98 * len(planted)
    assert len({i for pair in found - planted for i in pair}) < 0.01 * len(files)


def test_equal_and_connected():
    assert equal_groups("abcab") == [[0, 3], [1, 4]]
    assert connected(6, [(4, 2), (2, 5), (1, 3)]) == [0, 1, 2, 1, 2, 2]


def test_connected_as_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 200, (2, 120))
    matrix = sparse.coo_matrix((np.ones(120), (a, b)), shape=(200, 200))
    _, theirs = sparse.csgraph.connected_components(matrix, directed=False)
    ours = connected(200, zip(a.tolist(), b.tolist()))
    assert len(set(zip(ours, theirs))) == len(set(ours)) == len(set(theirs))
    assert all(root <= i for i, root in enumerate(ours))


@pytest.fixture
def files(tmp_path, pictures):
    """One picture as a file, the file again, its pixels in other bytes, and nearly; and another picture."""
    first = encoded(pictures[0])
    contents = [first, first, encoded(pictures[0], compress_level=0), COPIES["compressed"](pictures[0], 0)]
    paths = []
    for i, data in enumerate([*contents, encoded(pictures[1])]):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(data)
    return paths


def test_the_kinds_of_copy(files):
    part = Part(files, torch.zeros(len(files), dtype=torch.int64), [file.name for file in files])
    copies = find_copies(survey(Dataset("files", ["one"], {"all": part})).pictures)
    assert copies.same == [0, 0, 0, 3, 4]
    assert copies.together == [0, 0, 0, 0, 4]
    assert [pair[:3] for pair in copies.pairs()] == [(0, 1, "file"), (0, 2, "pixels"), (0, 3, "near")]


@pytest.mark.slow
def test_known_copies_in_cifar10(shared):
    """Test images that Barz & Denzler 2020 judged near duplicates of training images, the nearest 40 of their list
    (meta/duplicates_cifar10.csv of github.com/cvjena/cifair)."""
    known = (
        "6611 159 7293 6080 2901 896 673 516 3745 4989 7029 3991 7052 5243 4362 2830 576 1071 3641 1920 "
        "3520 9703 4297 6563 7075 4424 535 3663 6435 8299 5863 6350 4332 4105 5423 3763 40 2911 104 7225"
    )
    pictures = survey(open_dataset(shared / "data/cifar10")).pictures
    copies = find_copies(pictures)
    parts = Counter(picture.part for picture in pictures)
    leaked = {b - parts["train"] for a, b, _ in copies.near if a < parts["train"] <= b}
    assert sum(int(test) in leaked for test in known.split()) >= 38
    assert 300 <= len(leaked) <= 600
