"""What is never given to a decoder, and that nothing else is kept from it."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from resnetkit.data import guard
from resnetkit.data.preprocess import BadImage, decode
from tests.data.bad_files import bad_contents, encoded, good_contents, many_scans, photo, png


@pytest.mark.parametrize("name", list(bad_contents()))
def test_bad_contents_are_refused_with_their_reason_and_soon(name):
    data, reason = bad_contents()[name]
    begun = time.process_time()
    with pytest.raises(BadImage, match=reason):
        decode(data, "rgb")
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("name", list(good_contents()))
def test_odd_contents_are_read(name):
    data = good_contents()[name]
    image = decode(data, "rgb")
    assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.numel()


@pytest.mark.parametrize(
    "suffix", ["eps", "pdf", "psd", "jp2", "icns", "fits", "ico", "tga", "pcx", "sgi", "avif", "dds"]
)
def test_no_other_decoder_is_entered(suffix, monkeypatch, tmp_path):
    """Whatever Pillow writes, under the name of a JPEG."""
    try:
        data = encoded(photo(), {"jp2": "JPEG2000"}.get(suffix, suffix))
    except (KeyError, OSError):
        data = {"psd": b"8BPS\0\1", "fits": b"SIMPLE  =   T"}[suffix]
    opened = []
    for kind in set(Image.OPEN) - set(guard.FORMATS):
        factory, accept = Image.OPEN[kind]
        monkeypatch.setitem(Image.OPEN, kind, (lambda *a, kind=kind: opened.append(kind), accept))
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(BadImage, match="is not read; save it as JPEG or PNG|not an image of a known format"):
        decode(tmp_path / "a.jpg", "rgb")
    assert not opened


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_turned_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("png", "tiff", "webp"):
        data = encoded(photo(), kind, exif=exif, lossless=True)
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert torch.equal(decode(data, "rgb"), torch.from_numpy(np.array(theirs)).permute(2, 0, 1))


def test_colours_of_ink_and_first_frames():
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    inked = decode(encoded(red.convert("CMYK"), "jpeg", quality=95), "rgb").float().mean((1, 2))
    assert (inked - torch.tensor([200.0, 30.0, 30.0])).abs().max() < 3
    for kind in ("gif", "webp", "png", "tiff"):
        options = {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (0, 0, 255))]}
        assert decode(encoded(red, kind, **options), "rgb")[:, 0, 0].tolist() == pytest.approx([200, 30, 30], abs=3)


def test_pixels_are_counted_exactly(monkeypatch):
    monkeypatch.setattr(guard, "MAX_PIXELS", 100)
    for width, good in ((9, True), (10, True), (11, False)):
        data = encoded(Image.new("RGB", (width, 10)), "png")
        if good:
            assert decode(data, "rgb").shape == (3, 10, width)
        else:
            with pytest.raises(BadImage, match="11x10 pixels; 100 are the most that is decoded"):
                decode(data, "rgb")


def test_scans_are_those_of_the_picture_itself():
    assert guard.jpeg_scans(encoded(photo(), "jpeg")) == 1
    progressive = encoded(photo(), "jpeg", progressive=True)
    count = len(re.findall(rb"\xff\xda", progressive))
    assert guard.jpeg_scans(progressive) == count > 5
    assert guard.jpeg_scans(many_scans(30)) == guard.jpeg_scans(many_scans(0)) + 30
    thumbnail = encoded(photo(), "jpeg", exif=b"Exif\0\0" + b"\xff\xda" * 500)
    assert guard.jpeg_scans(thumbnail + b"\xff\xda" * 500) == 1  # those in a note and after the end are no scans
    large = many_scans(60, side=64)
    assert guard.too_much(6000, 6000, "jpeg", large).endswith("scans, slow beyond reason")
    assert guard.too_much(6000, 6000, "jpeg", progressive) is None


def test_the_largest_picture_decodes_in_seconds():
    """A hundred kilobytes that unpack to the most pixels allowed; of processor time, as the machine may be busy."""
    width, height = 9400, 9518
    begun = time.process_time()
    image = decode(png(width, height, b"\0" * height * (1 + width), colour=0), "grey")
    assert image.shape == (1, height, width) and time.process_time() - begun < 5


def test_photographs_pass(shared: Path):
    files = sorted((shared / "data" / "flowers" / "val").rglob("*.jpg"))
    assert len(files) == 100
    assert not [file for file in files if guard.refusal(file.read_bytes())]
