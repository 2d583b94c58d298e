"""What is seen of an image at an eighth of its size is what is seen of the whole."""

import io
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data import ingest as module
from resnetkit.data.ingest import _look_at, ingest
from resnetkit.data.parts import Dataset, Part
from resnetkit.data.preprocess import decode, picture_size
from tests.data.bad_files import encoded, pixels

ORIENTATION = 0x0112


def jpeg(height: int, width: int, mode: str = "RGB", **options) -> bytes:
    smooth = np.indices((height, width)).sum(0)[..., None] * [1, 2, 3] % 200
    return encoded(
        Image.fromarray((smooth + pixels(height, width) // 5).astype(np.uint8)).convert(mode), "jpeg", **options
    )


def on_its_side(image: bytes) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image)).save(buffer, "jpeg", exif=exif)
    return buffer.getvalue()


def tiff_on_its_side(height: int, width: int) -> bytes:
    """Whose sides Pillow gives as they are when it is turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(Image.fromarray(pixels(height, width)), "tiff", exif=exif)


def grey_but_for_a_dot() -> bytes:
    """A colour that is gone at an eighth."""
    image = np.full((160, 240, 3), 128, np.uint8)
    image[80, 120] = (134, 128, 128)
    return encoded(Image.fromarray(image), "jpeg", quality=100, subsampling=0)


KINDS = {
    "colours": jpeg(200, 300),
    "progressive": jpeg(513, 700, progressive=True),
    "grey": jpeg(300, 200, "L"),
    "cmyk": jpeg(100, 900, "CMYK"),
    "narrow": jpeg(65, 66),
    "low": jpeg(9, 200),
    "on its side": on_its_side(jpeg(120, 200)),
    "a dot": grey_but_for_a_dot(),
    "tiff on its side": tiff_on_its_side(100, 150),
    "small tiff on its side": tiff_on_its_side(40, 60),
    "png": encoded(Image.fromarray(pixels(100, 150)), "png"),
    "small": jpeg(64, 48),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_glance_tells_what_the_whole_does(kind):
    """Of the image as it is and cut short all, with bytes changed whether it reads and what it is."""
    generator = random.Random(kind)
    for n in range(25):
        data = bytearray(KINDS[kind])
        if n % 3 == 1:
            data = data[: generator.randrange(2, len(data))]
        elif n % 3 == 2:
            for _ in range(generator.choice((1, 3, 20))):
                data[generator.randrange(len(data))] = generator.randrange(256)
        whole, glance = (replace(_look_at(bytes(data), None, entire), pixels=None) for entire in (True, False))
        if n % 3 == 2:
            whole, glance = (replace(seen, reason=str(bool(seen.reason)), grey=True) for seen in (whole, glance))
        assert glance == whole
    assert not _look_at(KINDS[kind], None, False).reason


def test_sides_are_those_of_the_pixels():
    for kind in ("on its side", "tiff on its side", "small tiff on its side"):
        image = KINDS[kind]
        assert _look_at(image, None, False).side == tuple(decode(image).shape[1:]) == picture_size(image)


def test_the_dot_would_be_missed(monkeypatch):
    """The guard above can fail."""
    assert not _look_at(KINDS["a dot"], None, False).grey
    whole = module.decode
    monkeypatch.setattr(module, "decode", lambda data, shrink=lambda height, width: 8: whole(data, shrink=shrink))
    assert _look_at(KINDS["a dot"], None, False).grey


def test_large_jpegs_are_measured_small_and_others_whole():
    images = [KINDS["colours"], KINDS["small"], KINDS["png"]]
    dataset = Dataset("made", ["a"], {"all": Part(images, torch.zeros(3, dtype=torch.long), ["x", "y", "z"])})
    seen = ingest(dataset, 0.0, measure=lambda pixels: tuple(pixels.shape), whole=False).measured["all"]
    assert seen == [(3, 25, 38), (3, 64, 48), (3, 100, 150)]
    assert ingest(dataset, 0.0, measure=lambda pixels: tuple(pixels.shape)).measured["all"][0] == (3, 200, 300)
