"""Batches: order and augmentation are functions of (seed, epoch, sample) and nothing else."""

import gc
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from resnetkit.data.augment import (
    Augmentation,
    crop_and_flip,
    draws,
    erase_some,
    random_resized_crop,
    recolour_and_erase,
)
from resnetkit.data.datasets import Part
from resnetkit.data.encoded import BadImage
from resnetkit.data.loaders import TrainingBatches, evaluation_batches
from resnetkit.data.preprocess import LETTERBOX_GREY, Preprocessing

SIZE = (8, 8)


def part(count=50):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))
    return Part(images, torch.arange(count), [str(i) for i in range(count)])


def batches(seed=0, batch_size=16, count=50, erasing=0.0, **options):
    preprocessing = Preprocessing(size=SIZE, framing="squash")
    augmentation = Augmentation(2, 1.0, True, erasing=erasing)
    return TrainingBatches(
        part(count), preprocessing, augmentation, batch_size=batch_size, seed=seed, workers=0, **options
    )


def epoch(loader, number, first=0):
    return list(loader.epoch(number, SIZE, first))


def test_an_epoch_has_every_sample_once_in_even_batches():
    loader = batches()
    got = epoch(loader, 0)
    assert len(got) == loader.steps == 4
    assert sorted(torch.cat([labels for _, labels in got]).tolist()) == list(range(50))
    assert {len(labels) for _, labels in got} == {12, 13}  # never a lone last image


def test_repeats_are_copies_in_one_batch_augmented_each_in_its_own_way():
    got = epoch(batches(repeats=3, batch_size=15), 0)
    assert sum(len(labels) for _, labels in got) == 50
    seen = torch.cat([labels for _, labels in got])
    assert seen.unique().numel() == 17
    images, labels = got[0]
    assert labels[:3].unique().numel() == 1 and labels[2] != labels[3]
    assert not torch.equal(images[0], images[1]) or not torch.equal(images[0], images[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="small images are augmented on a GPU where there is one")
@pytest.mark.parametrize("erasing", [0.0, 0.5])
@pytest.mark.parametrize(("size", "apart"), [((8, 8), 0), ((5, 6), 1)], ids=["whole", "resized"])
def test_a_gpu_gives_the_batches_of_a_processor(size, apart, erasing):
    """Resized in float32 there and in whole numbers here: by a step of a byte at most."""
    kept = torch.arange(50) % 3 > 0
    loaders = [batches(device=torch.device(name), erasing=erasing) for name in ("cpu", "cuda")]
    here, there = (list(loader.epoch(1, size, 1, kept)) for loader in loaders)
    for (x, y), (gx, gy) in zip(here, there, strict=True):
        assert gx.device.type == gy.device.type == "cuda" and gx.dtype == torch.uint8
        assert torch.equal(y, gy.cpu())
        assert (x.int() - gx.cpu().int()).abs().max() <= apart


def test_an_epoch_begun_in_the_middle_goes_on_the_same():
    whole, rest = epoch(batches(), 3), epoch(batches(), 3, first=2)
    for (x, y), (rx, ry) in zip(whole[2:], rest, strict=True):
        assert torch.equal(x, rx) and torch.equal(y, ry)


def test_seed_and_epoch_change_order_and_augmentation():
    one, other_epoch, other_seed = epoch(batches(), 0), epoch(batches(), 1), epoch(batches(seed=1), 0)
    assert not torch.equal(one[0][1], other_epoch[0][1])
    assert not torch.equal(one[0][1], other_seed[0][1])
    assert not torch.equal(draws(0, 0, 5), draws(0, 1, 5))


def test_two_epochs_show_each_image_both_ways():
    flipped = torch.stack([draws(0, epoch, 10_000)[:, 0] < 0.5 for epoch in range(4)])
    assert torch.equal(flipped[0], ~flipped[1]) and torch.equal(flipped[0], flipped[2])
    assert 0.48 < flipped[0].float().mean() < 0.52
    assert not torch.equal(flipped[0], draws(1, 0, 10_000)[:, 0] < 0.5)


def test_augmentation_belongs_to_the_sample_not_to_the_batch():
    small, large = epoch(batches(batch_size=5), 0), epoch(batches(batch_size=50), 0)
    by_label = {label: x for images, labels in large for x, label in zip(images, labels.tolist())}
    for images, labels in small:
        for x, label in zip(images, labels.tolist()):
            assert torch.equal(x, by_label[label])


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_crop_and_flip_is_a_padded_crop(mode):
    images = part(64).images
    drawn = torch.rand(64, 5)
    got = crop_and_flip(images, drawn, Augmentation(2, 1.0, True, padding_mode=mode))
    padded = F.pad(images.float(), (2, 2, 2, 2), "constant" if mode == "zeros" else mode).to(images.dtype)
    flips = 0
    for x, row, out in zip(padded, drawn.tolist(), got):
        top, left = int(row[1] * 5), int(row[2] * 5)
        crop = x[:, top : top + 8, left : left + 8]
        flips += row[0] < 0.5
        assert torch.equal(out, crop.flip(2) if row[0] < 0.5 else crop)
    assert 15 < flips < 50


def test_a_batch_has_one_box_of_noise_in_as_many_images_as_asked_for():
    plain, erased = epoch(batches(), 0), epoch(batches(erasing=1.0), 0)
    for (x, y), (ex, ey) in zip(plain, erased, strict=True):
        assert torch.equal(y, ey)
        for changed in (x != ex).any(1):
            rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
            area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert 0 < area <= 64 / 2 and changed.sum() > 0.6 * area
    some = torch.cat([x for x, _ in epoch(batches(count=500, erasing=0.25), 0)])
    assert 95 < (some != torch.cat([x for x, _ in epoch(batches(count=500), 0)])).flatten(1).any(1).sum() < 155


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_boxes_of_a_batch_are_those_of_its_images_one_by_one(share):
    augmentation = Augmentation(0, 1.0, False, erasing=share)
    images, drawn = part(64).images, torch.rand(64, 6)
    wanted = torch.stack([recolour_and_erase(x, own, augmentation) for x, own in zip(images, drawn.tolist())])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        got = images.clone(memory_format=memory_format)
        erase_some(got, drawn[:, 5].tolist(), share)
        assert torch.equal(got, wanted)
    changed = (wanted != images).flatten(1).any(1)
    assert share * 64 - 12 < changed.sum() <= share * 64 + 12


def test_a_rim_may_be_wider_than_the_image():
    """Reflected again at the other rim, as numpy pads."""
    images = torch.randint(0, 256, (50, 3, 3, 1), dtype=torch.uint8)
    drawn = torch.rand(50, 5)
    got = crop_and_flip(images, drawn, Augmentation(5, 1.0, False, padding_mode="reflect"))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (5, 5), (5, 5)), "reflect")
    for x, row, out in zip(padded, drawn.tolist(), got):
        top, left = int(row[1] * 11), int(row[2] * 11)
        assert np.array_equal(out, x[:, top : top + 3, left : left + 1])


def test_no_augmentation_leaves_images_alone():
    images = part().images
    assert crop_and_flip(images, torch.rand(50, 5), Augmentation(0, 1.0, False)) is images


def test_a_strip_is_letterboxed_without_its_whole_square():
    strip = torch.full((3, 1, 10_000_000), 255, dtype=torch.uint8)
    row = draws(0, 0, 1)[0].tolist()
    everything = Augmentation(0, 1.0, False)
    box = random_resized_crop(strip, row, size=(24, 24), augmentation=everything, framing="letterbox")
    assert box.shape == (3, 24, 24) and box[:, 0].eq(LETTERBOX_GREY).all()


@pytest.mark.parametrize("shape", [(3, 100, 150), (3, 20, 300), (1, 7, 5)])
def test_random_resized_crop_takes_the_share_it_says(shape):
    image = torch.full(shape, 9, dtype=torch.uint8)
    for row in torch.rand(50, 5).tolist():
        out = random_resized_crop(image, row, size=(24, 24), augmentation=Augmentation(0, 0.25, True))
        assert out.shape == (shape[0], 24, 24) and (out == 9).all()
    whole = random_resized_crop(
        image, [0.9, 1.0, 0.5, 0.0, 0.0], size=shape[1:], augmentation=Augmentation(0, 1.0, False)
    )
    assert whole.shape == shape


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for i in range(9):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(generator.integers(0, 256, (30 + i, 50, 3), dtype=np.uint8)).save(paths[-1])
    return Part(paths, torch.arange(9), [p.name for p in paths])


def photo_batches(photos, workers):
    preprocessing = Preprocessing(size=(16, 16), resize=18)
    return TrainingBatches(photos, preprocessing, Augmentation(0, 0.3, True), batch_size=4, seed=0, workers=workers)


def test_photos_are_the_same_with_any_number_of_workers(photos):
    here, workers = photo_batches(photos, 0), photo_batches(photos, 2)
    for number, size, first in [(0, (12, 12), 0), (1, (16, 10), 0), (1, (16, 10), 1)]:
        ours, theirs = list(here.epoch(number, size, first)), list(workers.epoch(number, size, first))
        assert len(ours) == 3 - first
        for (x, y), (wx, wy) in zip(ours, theirs, strict=True):
            assert x.shape[1:] == (3, *size)
            assert torch.equal(x, wx) and torch.equal(y, wy)


def test_an_epoch_broken_off_leaves_nothing_in_the_next(photos):
    whole = photo_batches(photos, 0)
    workers = photo_batches(photos, 2)
    next(workers.epoch(0, (12, 12)))
    for (x, y), (wx, wy) in zip(whole.epoch(1, (12, 12)), workers.epoch(1, (12, 12)), strict=True):
        assert torch.equal(x, wx) and torch.equal(y, wy)


def test_workers_outlive_an_epoch(photos):
    workers = photo_batches(photos, 2)
    list(workers.epoch(0, (12, 12)))
    first = {child.pid for child in multiprocessing.active_children()}
    list(workers.epoch(1, (12, 12)))
    assert {child.pid for child in multiprocessing.active_children()} == first and len(first) >= 2


@pytest.mark.parametrize("broken_off", [False, True])
def test_workers_end_with_their_batches_in_a_cycle_too(photos, broken_off):
    before = set(multiprocessing.active_children())
    batches = photo_batches(photos, 2)
    next(epoch := batches.epoch(0, (12, 12)))
    if not broken_off:
        list(epoch)
    batches.itself = batches
    del batches, epoch
    gc.collect()
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("broken_off", [False, True])
def test_workers_of_an_evaluation_end_with_it(photos, broken_off):
    before = set(multiprocessing.active_children())
    batches = evaluation_batches(photos, Preprocessing(size=(16, 16), resize=18), 4, workers=2)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    if not broken_off:
        list(batches)
    del batches
    assert set(multiprocessing.active_children()) <= before


HELD = """
import sys, torch
from pathlib import Path
from resnetkit.data.augment import Augmentation
from resnetkit.data.datasets import Part
from resnetkit.data.loaders import TrainingBatches
from resnetkit.data.preprocess import Preprocessing
photos = Part([Path(path) for path in sys.argv[1:]], torch.arange(9), sys.argv[1:])
how = Preprocessing(size=(16, 16), resize=18), Augmentation(0, 0.3, True)
batches = TrainingBatches(photos, *how, batch_size=4, seed=0, workers=2)
print(sum(len(labels) for _, labels in batches.epoch(0, (12, 12))), flush=True)
unfinished = batches.epoch(1, (12, 12))
next(unfinished)
"""


def test_a_process_that_holds_its_batches_ends(photos):
    ran = subprocess.run(
        [sys.executable, "-c", HELD, *map(str, photos.images)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "9\n" and ran.returncode == 0, ran.stderr


def test_evaluation_frames_every_image_in_order(photos):
    preprocessing = Preprocessing(size=(16, 16), resize=18)
    got = list(evaluation_batches(photos, preprocessing, 4, workers=0))
    assert torch.cat([labels for _, labels in got]).tolist() == list(range(9))
    assert torch.equal(got[2][0][0], preprocessing.frame(preprocessing.decode(photos.images[8])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_went_away_is_named(photos, workers):
    photos.images[3].unlink()
    for read in (
        lambda: photo_batches(photos, workers).epoch(0, (12, 12)),
        lambda: evaluation_batches(photos, Preprocessing(size=(16, 16), resize=18), 4, workers),
    ):
        with pytest.raises(BadImage, match=r"^3\.png can no longer be read: no such file$"):
            list(read())
