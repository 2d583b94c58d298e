"""Pixels against Pillow's own, and files as people have them."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data import guard
from resnetkit.data.preprocess import BadImage, Preprocessing, decode, resize
from resnetkit.errors import ResnetkitError

PHOTO = Preprocessing(size=(64, 48), resize=72)


def noise(height=90, width=120, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "pillow"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [(31, 44), (90, 50), (140, 200)])
def test_resize_is_pillows_within_one_level(name, pillow, size):
    pixels = noise()
    ours = resize(torch.from_numpy(pixels).permute(2, 0, 1), list(size), name).permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(pixels).resize(size[::-1], pillow))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_frame_resizes_the_shorter_side_and_crops_the_centre():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 128, 1)  # a ramp of 256 columns, 128 rows
    framed = Preprocessing(size=(64, 64), resize=64).frame(pixels)
    assert framed.shape == (3, 64, 64)
    assert abs(int(framed[0, 32, 0]) - 64) <= 2 and abs(int(framed[0, 32, 63]) - 191) <= 2


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_framed_by_its_middle_alone(turned, monkeypatch):
    """As the whole of it would be, which for the long one would take terabytes."""
    strip = torch.from_numpy(noise(2, 301)).permute(2, 0, 1)
    long = torch.full((3, 1, 10_000_000), 7, dtype=torch.uint8)
    strip, thin, long = (image.mT if turned else image for image in (strip, strip[:, :1].contiguous(), long))
    wholes = [PHOTO.frame(image.contiguous()) for image in (strip, thin)]
    monkeypatch.setattr(guard, "MAX_PIXELS", 100_000)
    assert all(torch.equal(PHOTO.frame(image), whole) for image, whole in zip((strip, thin), wholes))
    assert torch.equal(PHOTO.frame(long), torch.full((3, 64, 48), 7, dtype=torch.uint8))


def test_frame_leaves_the_right_size_alone():
    image = torch.from_numpy(noise(32, 32)).permute(2, 0, 1)
    assert Preprocessing(size=(32, 32), framing="squash").frame(image) is image


def test_one_image_is_framed_as_in_a_batch():
    images = torch.from_numpy(np.stack([noise(), noise()[:, ::-1].copy()])).permute(0, 3, 1, 2)
    together = PHOTO.frame(images)
    assert all(torch.equal(PHOTO.frame(image), row) for image, row in zip(images, together))


@pytest.mark.parametrize("size", [[24, 20], [70, 90]])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_resizing_is_the_same_however_pixels_lie(channels, size):
    """A crop of pixel after pixel, a whole image of such, a batch of them, one pixel wide, and planes."""
    whole = torch.randint(0, 256, (2, 40, 50, channels), dtype=torch.uint8).movedim(-1, 1)
    for images in (whole, whole[..., 3:31, 5:44], whole[..., 7:8]):
        planes = resize(images.contiguous(), size)
        assert torch.equal(resize(images, size), planes)
        assert all(torch.equal(resize(image, size), plane) for image, plane in zip(images, planes))


def test_pixels_in_a_row_stay_so_when_resized():
    image = torch.zeros(40, 50, 3, dtype=torch.uint8).permute(2, 0, 1)
    for pixels in (image, image[:, 3:31, 5:44]):
        assert resize(pixels, [24, 20]).permute(1, 2, 0).is_contiguous()


def test_normalise():
    batch = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    values = Preprocessing(size=(1, 1), framing="squash", mean=(0.5, 0.1, 0.0), std=(0.25, 0.5, 1.0)).normalise(batch)
    torch.testing.assert_close(values.flatten(), torch.tensor([-2.0, 0.2, 1.0]))


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 6), (3, 1, 4, 4), (2, 5, 1, 1), (0, 3, 4, 4)])
def test_normalise_gives_both_layouts_the_same_values(shape):
    planar = torch.randint(0, 256, shape, dtype=torch.uint8)
    channels = shape[1]
    preprocessing = Preprocessing(
        size=shape[2:],
        framing="squash",
        channels={1: "grey", 3: "rgb"}.get(channels, str(channels)),
        mean=tuple(0.4 + 0.05 * c for c in range(channels)),
        std=tuple(0.2 + 0.03 * c for c in range(channels)),
    )
    interleaved = planar.contiguous(memory_format=torch.channels_last)
    values = preprocessing.normalise(interleaved)
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(values, preprocessing.normalise(planar))
    by_hand = (planar / 255 - torch.tensor(preprocessing.mean)[:, None, None]) / torch.tensor(preprocessing.std)[
        :, None, None
    ]
    torch.testing.assert_close(values, by_hand)
    floats = interleaved.float()
    preprocessing.normalise(floats)
    assert torch.equal(floats, interleaved.float()), "the images given stay as they are"


def test_exif_orientation_is_applied():
    image = Image.fromarray(noise(20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned = decode(encoded(image, "png", exif=exif), "rgb")
    assert torch.equal(turned, torch.from_numpy(np.rot90(np.asarray(image), -1).copy()).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    pixels = decode(encoded(image.convert(mode), "png"), "rgb")
    assert pixels[:, 0, 0].tolist() == [0, 0, 0]
    assert pixels[:, 3, 3].tolist() == [255, 255, 255]


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.array([[0, 257 * 7, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(levels), "png"), "grey").flatten().tolist() == [0, 7, 255]


@pytest.mark.parametrize("largest", [65535, 4095, 1023])
def test_a_pgm_of_sixteen_bits_is_scaled_by_its_maximum(largest):
    levels = np.array([[0, largest // 2, largest]])
    header = f"3 1 {largest}\n".encode()
    for data in (b"P5 " + header + levels.astype(">u2").tobytes(), b"P2 " + header + b"%d %d %d\n" % (*levels[0],)):
        assert decode(data, "grey").flatten().tolist() == [0, 127, 255]


@pytest.mark.parametrize("channels", ["rgb", "grey", None])
def test_an_array_of_one_channel_is_grey(channels):
    levels = noise()[..., :1]
    assert torch.equal(decode(levels, channels), decode(levels[..., 0], channels))


def test_an_array_of_bands_is_no_picture():
    assert decode(noise(channels=7), None).shape == (7, 90, 120)
    with pytest.raises(BadImage, match="an image of 7 bands, where a picture is wanted"):
        decode(noise(channels=7), "rgb")


def test_cmyk_and_grey():
    assert decode(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "jpeg"), "rgb")[0].float().mean() > 200
    grey = Image.fromarray(noise()[..., 0])
    assert torch.equal(decode(encoded(grey, "png"), "rgb")[1], torch.from_numpy(noise()[..., 0]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encoded(Image.fromarray(noise()), "jpeg")[:500],
        encoded(Image.fromarray(noise()), "png")[:-500],
    ],
)
def test_broken_images_are_bad_with_a_reason(data):
    with pytest.raises(BadImage, match="."):
        decode(data, "rgb")


def test_a_decompression_bomb_is_bad(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImage, match="bomb"):
        decode(encoded(Image.fromarray(noise()), "png"), "rgb")


@pytest.mark.parametrize(
    "record",
    [
        {"size": (32, 32), "resize": 16},
        {"size": (0, 32), "resize": None},
        {"size": (32, 32), "resize": None, "channels": "bgr"},
        {"size": (32, 32), "resize": None, "std": (1.0, 0.0, 1.0)},
        {"size": (32, 32), "resize": None, "mean": (0.5,)},
        {"size": (32, 32), "resize": None, "interpolation": "nearest"},
        {"size": 32, "resize": None},
        {"size": (32.0, 32.0), "resize": None},
        {"size": ("32", "32"), "resize": None},
        {"size": (32, 32), "resize": None, "std": 0.2},
        {"size": (32, 32), "resize": None, "channels": 5, "mean": (0.5,) * 5, "std": (0.5,) * 5},
        {"size": (32, 32), "resize": (36, 36)},
        {"size": (32, 32), "resize": 36.0},
        {"size": (), "resize": 5},
        {"size": (32, 32), "resize": 0},
        {"size": (32, 32), "resize": None, "mean": (float("nan"), 0.5, 0.5)},
        {"size": (32, 32), "resize": None, "mean": (10**400, 0.5, 0.5)},
    ],
)
def test_impossible_records_are_refused(record):
    with pytest.raises(ResnetkitError, match="preprocessing: "):
        Preprocessing(**record)


def test_lists_are_as_good_as_tuples():
    """And so equal, and with a hash."""
    assert Preprocessing(size=[64, 48], resize=72) == PHOTO and hash(Preprocessing(size=[64, 48], resize=72))
    measured = Preprocessing(size=tuple(np.array([64, 48])), resize=np.int64(72), mean=np.float32([0.5, 0.25, 0]))
    assert json.loads(json.dumps(measured.to_dict()))["mean"] == [0.5, 0.25, 0]


def test_record_round_trip_and_unknown_key():
    assert Preprocessing.from_dict(PHOTO.to_dict()) == PHOTO
    with pytest.raises(ResnetkitError, match="unknown gamma"):
        Preprocessing.from_dict(PHOTO.to_dict() | {"gamma": 2})
