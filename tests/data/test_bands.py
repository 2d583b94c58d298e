"""Images of bands as tifffile and NumPy write them, against NumPy's own arithmetic."""

import io
import random
import struct
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from resnetkit.data import guard
from resnetkit.data.datasets import open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.data.preprocess import BadImage, Preprocessing, decode, for_people, resize
from resnetkit.errors import TooManyBadImages
from tests.data.bad_files import encoded

GREY = {"photometric": "minisblack", "planarconfig": "contig"}
RGB = {"photometric": "rgb", "planarconfig": "contig"}


def values(bands, dtype, height=12, width=10):
    generator = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return generator.random((height, width, bands)).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max + 1, (height, width, bands), dtype=dtype)


def scaled(array):
    """The rule, once more: floats by 255 to the nearest, 16 bits by 257, which takes 65535 to 255."""
    if array.dtype.kind == "f":
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return array if array.dtype.itemsize == 1 else (array.astype(np.int64) // 257).astype(np.uint8)


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **GREY | options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def test_decode_without_a_word_gives_what_there_is():
    photo = encoded(Image.fromarray(values(3, np.uint8)), "png")
    assert torch.equal(decode(photo), decode(photo, "rgb"))
    grey = decode(npy(values(1, np.uint8)[..., 0]))
    assert grey.shape == (3, 12, 10) and torch.equal(grey[0], grey[2])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("bands", [2, 4, 5, 12])
def test_arrays_round_trip(bands, dtype):
    array = values(bands, dtype[-2:]).astype(dtype)
    expected = torch.from_numpy(scaled(array)).permute(2, 0, 1)
    for given in (npy(array), npy(np.asfortranarray(array)), array):
        assert torch.equal(decode(given, str(bands)), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"rowsperstrip": 5, "compression": "zlib"},
        {"tile": (16, 16), "compression": "zlib"},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_tiffs_round_trip(dtype, options):
    array = values(5, dtype)
    stored = array.transpose(2, 0, 1) if options.get("planarconfig") == "separate" else array
    expected = torch.from_numpy(scaled(array)).permute(2, 0, 1)
    data = tiff(stored, **options)
    assert torch.equal(decode(data, "5"), expected)
    assert torch.equal(decode(data), expected)


@pytest.mark.parametrize("bands", [2, 3, 4, 7])
def test_tiffs_of_other_numbers_of_bands(bands):
    array = values(bands, np.uint8)
    for colours in (GREY, RGB) if bands > 3 else (GREY,):
        extra = ["unspecified"] * (bands - (3 if colours is RGB else 1))
        data = tiff(array, **colours, extrasamples=extra)
        assert torch.equal(decode(data), torch.from_numpy(array).permute(2, 0, 1))


def test_horizontal_differences_are_undone():
    array = values(5, np.uint16)
    assert torch.equal(
        decode(tiff(array, compression="zlib", predictor=2), "5"), torch.from_numpy(scaled(array)).permute(2, 0, 1)
    )


def test_floats_of_one_and_three_bands_are_pictures():
    array = values(3, np.float32)
    rgb = torch.from_numpy(scaled(array)).permute(2, 0, 1)
    for data in (tiff(array), tiff(array, **RGB), npy(array)):
        assert torch.equal(decode(data, "rgb"), rgb)
    for data in (tiff(array[..., 0]), npy(array[..., 0])):
        assert torch.equal(decode(data, "grey"), rgb[:1])


ORDINARY = {
    "RGB": (3, np.uint8, RGB),
    "RGB of 16 bits": (3, np.uint16, RGB),
    "RGBA": (4, np.uint8, RGB | {"extrasamples": ["unassalpha"]}),
    "RGBa": (4, np.uint8, RGB | {"extrasamples": ["assocalpha"]}),
    "grey and alpha": (2, np.uint8, GREY | {"extrasamples": ["unassalpha"]}),
    "CMYK": (4, np.uint8, {"photometric": "separated", "planarconfig": "contig"}),
    "grey": (1, np.uint8, {"photometric": "miniswhite"}),
}


@pytest.mark.parametrize("name", list(ORDINARY))
def test_pictures_stay_pictures(name):
    """Transparency and ink are no bands: these are read as Pillow reads them."""
    bands, dtype, options = ORDINARY[name]
    array = values(bands, dtype)
    data = tiff(array[..., 0] if bands == 1 else array, **options)
    image = Image.open(io.BytesIO(data))
    if image.mode in ("RGBA", "RGBa", "LA", "La"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    theirs = np.array(image.convert("RGB"))
    assert torch.equal(decode(data, "rgb"), torch.from_numpy(theirs).permute(2, 0, 1))
    with pytest.raises(BadImage, match="a picture, where an image of 4 bands is wanted"):
        decode(data, "4")


def test_a_fourth_band_that_is_no_transparency_is_a_band():
    """As red, green, blue and infrared are written; an array knows no transparency at all."""
    array = values(4, np.uint8)
    for data in (tiff(array, **RGB, extrasamples=["unspecified"]), npy(array)):
        assert torch.equal(decode(data, "4"), torch.from_numpy(array).permute(2, 0, 1))
        with pytest.raises(BadImage, match="an image of 4 bands, where a picture is wanted"):
            decode(data, "rgb")


def test_unknown_ranges_are_refused_by_name():
    low, gap = values(5, np.float32), values(5, np.float32)
    low[0, 0, 0], gap[0, 0, 0] = -0.5, np.nan
    reasons = {
        "float values from -0.5 to .*; scale them to 0..1": low,
        "float values from .* to 255; scale them to 0..1": np.full((4, 4, 5), 255, np.float32),
        "NaN among its values; fill the gaps first": gap,
        "int16 values have no known range; save as uint8, uint16 or floats from 0 to 1": values(5, np.int16),
    }
    for reason, array in reasons.items():
        for data in (npy(array), tiff(array)):
            with pytest.raises(BadImage, match=reason):
                decode(data, "5")
    with pytest.raises(BadImage, match="scale them to 0..1"):
        decode(tiff(np.full((4, 4), 2, np.float32)), "grey")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 4, 5, 2), np.uint8), "an array of shape"),
        (np.zeros(7, np.uint8), "an array of shape"),
        (np.zeros((0, 4, 5), np.uint8), "an array of shape"),
        (np.zeros((4, 4), [("a", "u1")]), "something other than plain numbers"),
        (np.zeros((4, 4), np.complex64), "no known range"),
    ],
)
def test_other_arrays_are_refused(array, reason):
    with pytest.raises(BadImage, match=reason):
        decode(npy(array), "5")


def test_a_pickle_is_never_opened():
    file = io.BytesIO()
    np.save(file, np.array([[print, print]], dtype=object), allow_pickle=True)
    with pytest.raises(BadImage, match="something other than plain numbers"):
        decode(file.getvalue(), "2")


def header(text, version=1):
    body = text.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes((version, 0)) + length + body


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("(100000, 100000, 5)", "are the most that is decoded"),
        ("(9000, 9000, 99999)", "MiB of values; 512 are the most"),
        ("(100, 100, 5)", "announces 200,000 bytes and has 3"),
        ("(99999999999999999999,)", "other than plain numbers"),
        ("(-5, 5)", "other than plain numbers"),
        ("(__import__('os').getpid(), 5)", "other than plain numbers"),
        ("(" * 5000, "other than plain numbers"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_lying_header_costs_nothing(shape, reason, version):
    data = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n", version) + b"abc"
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(BadImage, match=reason):
        decode(data, "5")
    assert tracemalloc.get_traced_memory()[1] < 2**20 and time.process_time() - begun < 0.5
    tracemalloc.stop()


def strips(array, inflated):
    """A TIFF of one deflated strip whose contents are `inflated`."""
    data = tiff(array, compression="zlib", rowsperstrip=len(array))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        offset, place = page.dataoffsets[0], page.tags["StripByteCounts"].valueoffset
    packed = zlib.compress(inflated, 9)
    patched = bytearray(data[:offset] + packed)
    patched[place : place + 4] = struct.pack("<I", len(packed))
    return bytes(patched)


def test_strips_that_unpack_without_end_are_refused():
    array = values(5, np.uint8)
    assert torch.equal(decode(strips(array, array.tobytes()), "5"), torch.from_numpy(array).permute(2, 0, 1))
    bomb = strips(array, bytes(2**26))
    tracemalloc.start()
    with pytest.raises(BadImage, match="unpack to more than the image"):
        decode(bomb, "5")
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    with pytest.raises(BadImage):
        decode(strips(array, array.tobytes()[:-1]), "5")


def test_tiffs_are_measured_before_they_are_decoded(monkeypatch):
    data = tiff(values(5, np.uint16))
    monkeypatch.setattr(guard, "MAX_PIXELS", 119)
    with pytest.raises(BadImage, match="10x12 pixels; 119 are the most that is decoded"):
        decode(data, "5")
    monkeypatch.setattr(guard, "MAX_PIXELS", 120)
    monkeypatch.setattr(guard, "MAX_FILE", 1199)
    with pytest.raises(BadImage, match="are the most that is decoded"):
        decode(data, "5")
    monkeypatch.setattr(guard, "MAX_FILE", 1200)
    assert decode(data, "5").shape == (5, 12, 10)
    tiled = tiff(values(5, np.uint8), tile=(4096, 4096), compression="zlib")
    with pytest.raises(BadImage, match="in strips"):
        decode(tiled, "5")


def test_other_compressions_and_turned_tiffs_are_refused():
    data = bytearray(tiff(values(5, np.uint8), extratags=[(274, "H", 1, 6, True)]))
    with pytest.raises(BadImage, match="turned by its orientation tag; save it upright"):
        decode(bytes(data), "5")
    data = bytearray(tiff(values(5, np.uint8)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags["Compression"].valueoffset
    data[place : place + 2] = struct.pack("<H", 5)
    with pytest.raises(BadImage, match="compressed by LZW; save it uncompressed or with deflate"):
        decode(bytes(data), "5")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's own words on broken tags
@pytest.mark.parametrize(
    "data",
    [
        npy(values(5, np.float32)),
        tiff(values(5, np.uint16)),
        tiff(values(5, np.uint8), compression="zlib", tile=(16, 16)),
    ],
    ids=["npy", "tiff", "tiled tiff"],
)
def test_broken_bytes_are_bad_images_and_nothing_else(data):
    chance = random.Random(0)
    begun = time.process_time()
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        try:
            assert decode(bytes(broken)).dtype == torch.uint8
        except BadImage as error:
            assert str(error)
    assert time.process_time() - begun < 20


def test_without_tifffile_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(BadImage, match=r"a TIFF of 5 bands needs tifffile.*pip install 'resnetkit\[bands\]'"):
        decode(tiff(values(5, np.uint8)), "5")
    assert decode(tiff(values(3, np.uint8), **RGB), "rgb").shape == (3, 12, 10)
    assert decode(npy(values(5, np.uint8)), "5").shape == (5, 12, 10)


def test_preprocessing_of_bands():
    five = Preprocessing(size=(8, 8), framing="squash", channels="5", mean=(0.5,) * 5, std=(0.25,) * 5)
    assert Preprocessing.from_dict(five.to_dict()) == five
    image = five.decode(values(5, np.uint8))
    alone = torch.cat([resize(band[None], [8, 8]) for band in image])
    assert torch.equal(five.frame(image), alone)
    for wrong in ("1", "3", "0", "05", "five", "-5"):
        with pytest.raises(ValueError, match='channels must be rgb, grey or a number of bands such as "5"'):
            Preprocessing(size=(8, 8), framing="squash", channels=wrong)
    with pytest.raises(ValueError, match="mean and std need 5 values"):
        Preprocessing(size=(8, 8), framing="squash", channels="5")


def test_people_see_the_first_three_bands_or_the_first():
    image = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 2, 2)
    assert for_people(image)[:, 0, 0].tolist() == [0, 1, 2]
    assert for_people(image[1:3])[:, 0, 0].tolist() == [1, 1, 1]
    assert for_people(image[4:])[:, 0, 0].tolist() == [4, 4, 4]


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.tif").write_bytes(tiff(values(5, np.uint8) // 2 + i + 60 * (name == "b")))
    return tmp_path


def test_a_set_has_one_number_of_bands(folder):
    np.save(folder / "a" / "four.npy", values(4, np.uint8))
    Image.fromarray(values(3, np.uint8)).save(folder / "b" / "photo.png")
    read = ingest(open_dataset(folder), max_bad=0.2)
    assert read.channels == "5" and read.dataset.parts["all"].images.shape == (10, 5, 12, 10)
    assert dict(read.dataset.bad) == {
        "a/four.npy": "an image of 4 bands, where an image of 5 bands is wanted",
        "b/photo.png": "a picture, where an image of 5 bands is wanted",
    }
    with pytest.raises(TooManyBadImages, match="an image of 5 bands, where a picture is wanted"):
        ingest(open_dataset(folder), max_bad=0.2, channels="rgb")


def test_a_stray_image_of_bands_is_left_out_of_photos(folder):
    for i in range(8):
        Image.fromarray(values(3, np.uint8, 20 + i)).save(folder / "a" / f"{i}.png")
        Image.fromarray(values(3, np.uint8, 30 + i)).save(folder / "b" / f"{i}.png")
    read = ingest(open_dataset(folder), max_bad=0.5)
    assert read.channels == "rgb" and len(read.dataset.parts["all"]) == 16
    assert {reason for _, reason in read.dataset.bad} == {"an image of 5 bands, where a picture is wanted"}
