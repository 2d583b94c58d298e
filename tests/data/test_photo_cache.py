"""Photos decoded small for training: what the crop needs, kept between epochs; evaluation untouched by any of it."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit import user_cache
from resnetkit.benchmark.subject import write_photos
from resnetkit.data import parallel, photo_cache, preprocess
from resnetkit.data.augment import Augmentation, draws, random_resized_crop, spare
from resnetkit.data.loaders import TrainingBatches, evaluation_batches
from resnetkit.data.parts import Part
from resnetkit.data.photo_cache import PhotoCache
from resnetkit.data.preprocess import ORIENTATION, BadImage, Preprocessing, decode, picture_size
from resnetkit.errors import ResourceExhausted

AUGMENTATION = Augmentation(0, 0.25, True)
PREPROCESSING = Preprocessing(size=(32, 32), resize=36)


@pytest.fixture
def part(tmp_path):
    write_photos(tmp_path / "photos", count=5, size=(90, 120))
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    return Part(paths, torch.arange(5), [path.name for path in paths])


def batches(part, cache=None):
    return TrainingBatches(part, PREPROCESSING, AUGMENTATION, batch_size=2, seed=0, workers=0, cache=cache)


def epoch(part, number, cache=None):
    return torch.cat([images for images, _ in batches(part, cache).epoch(number, (32, 32))])


def photo_cache_of(part, folder):
    return PhotoCache(folder / "cache", part, "rgb", 36)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes that Pillow decoded to, in order."""
    sizes = []
    load = preprocess._upright
    monkeypatch.setattr(preprocess, "_upright", lambda image: sizes.append(image.size) or load(image))
    return sizes


def test_a_crop_is_decoded_no_larger_than_it_needs(part, decoded):
    epoch(part, 0)
    widths = {width for width, _ in decoded}
    assert min(widths) < 120 and widths <= {120, 60, 30, 15}  # the scales of libjpeg's inverse DCT


@pytest.mark.parametrize("framing", ["crop", "letterbox", "squash"])
def test_what_is_left_covers_the_crop(framing):
    for index, drawn in enumerate(draws(0, 0, 200).tolist()):
        height, width = 40 + 7 * index, 900 - 3 * index
        factor = spare(height, width, drawn, size=(32, 48), augmentation=AUGMENTATION, framing=framing)
        image = torch.zeros(3, height // factor, width // factor, dtype=torch.uint8)
        boxes = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("resnetkit.data.augment.resize", lambda box, size, boxes=boxes: boxes.append(box) or box)
            random_resized_crop(image, drawn, size=(32, 48), augmentation=AUGMENTATION, framing=framing)
        rows, columns = boxes[-1].shape[1:]
        assert factor == 1 or (rows >= 31 and columns >= 47)  # a pixel of rounding


def test_scaled_decoding_is_near_the_full_one(part):
    full = decode(part.images[0], "rgb")
    half = decode(part.images[0], "rgb", lambda height, width: 2)
    assert half.shape == (3, 45, 60)
    reduced = preprocess.resize(full, [45, 60])
    shifted = reduced.roll(1, 2)
    off, off_by_a_pixel = ((half.float() - other.float()).abs().mean() for other in (reduced, shifted))
    assert off < 10 and off < off_by_a_pixel / 2  # two filters, on a picture of much detail


def test_a_photo_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 128, 3), np.uint8)).save(file, "JPEG", exif=exif)
    seen = []
    image = decode(file.getvalue(), "rgb", lambda height, width: seen.append((height, width)) or 2)
    assert seen == [(128, 64)] == [picture_size(file.getvalue())] and image.shape == (3, 64, 32)


def test_pixels_of_the_evaluation_do_not_change(part, decoded):
    """Full-size decoding, by Pillow itself."""
    epoch(part, 0)
    decoded.clear()
    (images, _) = next(evaluation_batches(part, PREPROCESSING, 5, 0))
    assert set(decoded) == {(120, 90)}
    plain = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in part.images]
    assert torch.equal(images, torch.stack([PREPROCESSING.frame(image) for image in plain]))


def test_a_second_epoch_decodes_nothing(part, decoded, tmp_path):
    cache = photo_cache_of(part, tmp_path)
    first = epoch(part, 0, cache)
    assert len(decoded) == 5 and cache.bytes == 5 * 36 * 48 * 3
    again = photo_cache_of(part, tmp_path)  # another run
    assert torch.equal(epoch(part, 0, again), first) and not torch.equal(epoch(part, 1, again), first)
    assert len(decoded) == 5


@pytest.mark.parametrize("apart", [False, True])
def test_a_photo_that_went_away_is_named(part, tmp_path, monkeypatch, apart):
    if apart:  # measured by other processes
        monkeypatch.setattr(parallel, "FEWEST", 2)
        monkeypatch.setattr(parallel, "CHUNK", 2)
        monkeypatch.setattr(parallel, "core_count", lambda: 2)
        monkeypatch.setattr(parallel, "LARGE_FILE", 10**9)
    part.images[3].unlink()
    with pytest.raises(BadImage, match=rf"^{part.names[3]} can no longer be read: no such file$"):
        photo_cache_of(part, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("framing", "policy"), [("crop", "none"), ("letterbox", "none"), ("squash", "trivial")])
def test_batches_come_in_channels_last(part, framing, policy, workers):
    preprocessing = Preprocessing(size=(32, 32), resize=36 if framing == "crop" else None, framing=framing)
    augmentation = AUGMENTATION._replace(policy=policy)
    training = TrainingBatches(part, preprocessing, augmentation, batch_size=5, seed=0, workers=workers)
    for images, _ in (*training.epoch(0, (32, 32)), *evaluation_batches(part, preprocessing, 5, workers)):
        assert images.shape == (5, 3, 32, 32) and images.is_contiguous(memory_format=torch.channels_last)


def test_a_training_batch_has_the_crops_of_its_draws(part):
    drawn = draws(0, 3, 5).tolist()
    by_label = {}
    for images, labels in batches(part).epoch(3, (32, 32)):
        by_label |= dict(zip(labels.tolist(), images))
    for label, image in by_label.items():
        crop = {"size": (32, 32), "augmentation": AUGMENTATION}
        decoded = decode(part.images[label], "rgb", lambda *full, d=drawn[label], c=crop: spare(*full, d, **c))
        assert torch.equal(image, random_resized_crop(decoded, drawn[label], **crop))


def test_a_checksum_is_looked_at_until_it_fits(part, decoded, monkeypatch, tmp_path):
    looked = []
    check = photo_cache.zlib.crc32
    monkeypatch.setattr(photo_cache, "zlib", SimpleNamespace(crc32=lambda data: looked.append(1) or check(data)))
    cache = photo_cache_of(part, tmp_path)
    for expected in (2, 3, 3):  # of what was not there and of what was decoded; of what is there; no more
        cache[0]
        assert len(looked) == expected
    assert len(decoded) == 1


def test_what_an_interruption_spoilt_is_decoded_again(part, decoded, tmp_path):
    first = epoch(part, 0, photo_cache_of(part, tmp_path))
    with open(tmp_path / "cache" / "pixels", "r+b") as file:
        file.write(bytes(100))  # of the first photo
    (tmp_path / "cache" / "shapes.npy").write_bytes(b"half")
    assert torch.equal(epoch(part, 0, photo_cache_of(part, tmp_path)), first)
    assert len(decoded) == 6


def test_a_disk_that_fills_up_costs_the_cache_alone(part, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    expected = epoch(part, 0, photo_cache_of(part, tmp_path / "whole"))
    monkeypatch.setattr(photo_cache, "_write", full)
    assert torch.equal(epoch(part, 0, photo_cache_of(part, tmp_path)), expected)
    monkeypatch.setattr(user_cache, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(ResourceExhausted, match="train without --cache"):
        photo_cache_of(part, tmp_path / "other")
