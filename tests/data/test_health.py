"""Every fault of a set is found, by name and number, and a sound set has none."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.contact_sheet import COLUMNS, GAP, MARGIN, TILE, draw_contact_sheet
from resnetkit.data.copies import find_copies
from resnetkit.data.datasets import open_dataset
from resnetkit.data.health import check, write_tables
from resnetkit.data.parts import Dataset, Part
from resnetkit.data.preprocess import Preprocessing
from resnetkit.data.statistics import statistics
from resnetkit.data.survey import survey
from tests.data.test_duplicates import cloud, encoded


def make(folder, images: dict[str, bytes]) -> None:
    for name, data in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def sound(first: int = 0) -> dict[str, bytes]:
    """Ten training and four validation images of each of two classes."""
    seeds = iter(range(first, first + 28))
    return {
        f"{split}/{label}/{i}.png": encoded(cloud(next(seeds), side=64))
        for split, count in (("train", 10), ("val", 4))
        for label in ("cat", "dog")
        for i in range(count)
    }


def examine(folder, **how):
    seen = survey(open_dataset(folder))
    return {finding.kind: finding for finding in check(seen, find_copies(seen.pictures), **how)}


def test_a_sound_set_has_no_finding(tmp_path):
    make(tmp_path, sound())
    assert examine(tmp_path, size=(64, 64)) == {}


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """A set with one of each fault."""
    folder = tmp_path_factory.mktemp("sick")
    images = sound()
    images["val/cat/again.png"] = images["train/cat/0.png"]  # the same file in both parts
    images["val/cat/redone.png"] = encoded(Image.open(io.BytesIO(images["train/cat/1.png"])), compress_level=1)
    images["val/dog/small.jpg"] = encoded(cloud(14, side=64).resize((48, 48)), "JPEG", quality=80)  # of train/dog/4
    images["train/dog/cat.png"] = images["train/cat/2.png"]  # one picture in two classes
    images["train/dog/twin.jpg"] = encoded(cloud(13, side=64), "JPEG", quality=70)  # of train/dog/3
    images["train/cat/cut.png"] = images["train/cat/3.png"][:500]
    images["train/dog/empty.jpg"] = b""
    images["train/cat/wide.png"] = encoded(cloud(40, side=200).crop((0, 0, 200, 70)))
    images["train/fox/0.png"] = encoded(cloud(41, side=64))
    images["val/fox/0.png"] = encoded(cloud(42, side=64))
    make(folder, images)
    return folder


@pytest.fixture(scope="module")
def found(sick):
    return examine(sick, size=(64, 64))


def test_leaks_are_named_first(found):
    assert next(iter(found)) == "leak"
    leak = found["leak"]
    assert leak.grave
    details = dict(leak.items)
    assert details["val/cat/again.png"] == "the same file as train/cat/0.png"
    assert details["val/cat/redone.png"] == "the same pixels as train/cat/1.png"
    assert details["val/dog/small.jpg"].endswith("like train/dog/4.png")
    assert len(details) == 3
    assert leak.message.startswith("3 of 12 held-out images (25.0%)") and "2 the same, 1 nearly" in leak.message


def test_one_picture_in_two_classes(found):
    assert found["class_conflict"].items == [("train/dog/cat.png (dog)", "the same file as train/cat/2.png (cat)")]
    assert found["class_conflict"].grave


def test_unreadable_files_have_their_reasons(found):
    reasons = dict(found["unreadable"].items)
    assert set(reasons) == {"train/cat/cut.png", "train/dog/empty.jpg"} and all(reasons.values())


def test_classes_sizes_and_copies(found):
    assert found["tiny_class"].items == [("fox", "1 training image")]
    assert found["imbalance"].items == [("fox", "1 training images against 12 of dog")]
    assert found["elongated"].items == [("train/cat/wide.png", "200x70 pixels")]
    assert found["small"].items == [("val/dog/small.jpg", "48x48 pixels")]
    assert found["duplicates"].items == [
        ("train/dog/cat.png", "the same file as train/cat/2.png"),
        ("train/dog/twin.jpg", "nearly train/dog/3.png"),
    ]
    assert len(found) == 8


def test_every_finding_says_what_to_do(found):
    for finding in found.values():
        record = finding.to_dict()
        assert record["count"] == len(finding.items) and record["cure"] and 1 <= len(record["examples"]) <= 3
        json.dumps(record)


def test_framing_that_loses_nothing_has_no_elongated_images(sick):
    assert "elongated" not in examine(sick, size=(64, 64), crop=False)


def test_an_undivided_set_has_no_leak_but_duplicates(tmp_path):
    images = {name.removeprefix("train/"): data for name, data in sound().items() if name.startswith("train")}
    images["dog/again.png"] = images["dog/0.png"]
    make(tmp_path, images)
    found = examine(tmp_path)
    assert list(found) == ["duplicates"] and "data split" in found["duplicates"].cure


def test_classes_that_only_case_or_unicode_form_tell_apart():
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    part = Part(images, torch.arange(4).repeat_interleave(10), [str(i) for i in range(40)])
    seen = survey(Dataset("set", ["Rose", "caf\u00e9", "cafe\u0301", "rose"], {"train": part}))
    (twins,) = check(seen, find_copies(seen.pictures))
    assert twins.kind == "class_twins"
    assert twins.items == [("Rose", "beside 'rose'"), ("caf\u00e9", "beside 'cafe\\u0301'")]


def test_a_class_without_training_images():
    part = Part(torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8), torch.zeros(10).long(), list("0123456789"))
    seen = survey(Dataset("set", ["some", "none"], {"train": part}))
    (empty,) = check(seen, find_copies(seen.pictures))
    assert (empty.kind, empty.items) == ("empty_class", [("none", "no training image")])


def test_several_labels_an_image():
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
    images[11] = images[0]
    labels = torch.ones(12, 2)
    labels[11, 1] = 0
    seen = survey(Dataset("set", ["a", "b"], {"train": Part(images, labels, [f"i{n}" for n in range(12)])}))
    found = {finding.kind: finding for finding in check(seen, find_copies(seen.pictures))}
    assert seen.count("train") == [12, 11]
    assert found["class_conflict"].items == [("i11 (a)", "the same file as i0 (a, b)")]


def test_the_tables_hold_everything(sick, tmp_path):
    seen = survey(open_dataset(sick))
    copies = find_copies(seen.pictures)
    findings = check(seen, copies, size=(64, 64))
    write_tables(findings, copies, seen, tmp_path / "out")
    with open(tmp_path / "out" / "findings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(finding.items) for finding in findings)
    with open(tmp_path / "out" / "duplicates.csv", newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [pair["kind"] for pair in pairs] == ["file", "pixels", "near", "file", "near"]  # leaks, then the others
    assert pairs[0]["path"] == "train/cat/0.png" and pairs[0]["copy_split"] == "val"


def test_statistics_as_numpy_has_them(tmp_path):
    make(tmp_path, sound())
    figures = statistics(survey(open_dataset(tmp_path)))
    assert figures["images"] == 28 and figures["parts"] == {"train": 20, "val": 8}
    assert figures["classes"]["dog"] == {"train": 10, "val": 4}
    assert figures["width"] == {"min": 64, "median": 64, "max": 64}
    files = sorted((tmp_path / "train").rglob("*.png"))
    assert figures["bytes"]["total"] == sum(file.stat().st_size for file in tmp_path.rglob("*.png"))
    pixels = np.concatenate([np.asarray(Image.open(file)).reshape(-1, 3) for file in files]) / 255
    np.testing.assert_allclose(figures["mean"], pixels.mean(0), atol=1e-4)
    np.testing.assert_allclose(figures["std"], pixels.std(0), atol=1e-4)


def test_the_contact_sheet_shows_what_the_network_sees(tmp_path):
    """Left half red, right half blue and twice as wide as high: a centre crop sees both, letterbox grey bands too."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 2] = 255
    part = Part([encoded(Image.fromarray(pixels))] * 3, torch.tensor([0, 0, 1]), ["a", "b", "c"])
    cropped = Preprocessing(size=(32, 32), resize=36)
    draw_contact_sheet(part, ["two", "one"], cropped, tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (MARGIN + COLUMNS * (TILE + GAP), 2 * (TILE + GAP) + GAP)
    left, right = (MARGIN + 5, GAP + 5), (MARGIN + TILE - 5, GAP + 5)
    assert sheet.getpixel(left) == (255, 0, 0) and sheet.getpixel(right) == (0, 0, 255)
    assert sheet.getpixel((MARGIN + TILE + GAP + 5, TILE + 2 * GAP + 5)) == (255, 255, 255)  # the second class has one
    boxed = Preprocessing(size=(32, 32), framing="letterbox")
    draw_contact_sheet(part, ["two", "one"], boxed, tmp_path / "boxed.png")
    assert len(set(Image.open(tmp_path / "boxed.png").getpixel(left))) == 1  # grey
