"""Divisions: stable as data grows, no group in two parts, shares as asked."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
import torch

from resnetkit.data.datasets import open_dataset
from resnetkit.data.parts import Dataset, Part
from resnetkit.data.resplit import (
    Division,
    SplitPlan,
    divide,
    require_files,
    require_other,
    table_paths,
    write_division,
)
from resnetkit.data.split import by_group, by_hash, stratified
from resnetkit.data.survey import survey
from resnetkit.errors import ResnetkitError
from tests.data.test_duplicates import cloud

SHARES = (0.7, 0.1, 0.2)


def digests(count: int, salt: str = "") -> list[str]:
    return [blake2b(f"{salt}{i}".encode(), digest_size=16).hexdigest() for i in range(count)]


def test_stratified():
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    chosen = stratified(labels, 0.2, seed=0)
    assert labels[chosen].bincount(minlength=3).tolist() == [2, 1, 0]


def test_by_hash_is_stable_as_data_grows():
    hashes = digests(2000)
    few = by_hash(hashes[:500], range(500), SHARES)
    many = by_hash(hashes, range(2000), SHARES)
    assert many[:500] == few


def test_a_copy_with_a_higher_hash_moves_nothing():
    ordered = sorted(digests(400))
    few = by_hash(ordered[:200], range(200), SHARES)
    copies = by_hash(ordered, [*range(200), *range(200)], SHARES)  # each joins a group of lower hash
    assert copies == few + few


def test_by_hash_gives_the_shares():
    counts = np.bincount(by_hash(digests(10_000), range(10_000), SHARES))
    # Each image falls by itself: the standard deviation of a share is at most half a percent.
    np.testing.assert_allclose(counts / 10_000, SHARES, atol=0.02)


def test_by_hash_does_not_move_the_test_when_val_changes(seed_pictures):
    parts = {val: divide(seed_pictures, SplitPlan(by="hash", val=val)).parts for val in (0.1, 0.3)}
    tests = {val: [part == "test" for part in found] for val, found in parts.items()}
    assert tests[0.1] == tests[0.3]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts(seed):
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 80, 1000).tolist()
    labels = draw.integers(0, 4, 1000).tolist()
    for places in (by_group(groups, labels, SHARES, seed), by_hash(digests(1000), groups, SHARES)):
        assert len(set(zip(groups, places))) == len(set(groups))


def test_single_images_are_divided_by_class_exactly():
    labels = [0] * 100 + [1] * 50 + [2] * 10
    table = Counter(zip(labels, by_group(range(160), labels, SHARES, seed=0)))
    assert [[table[label, part] for part in range(3)] for label in range(3)] == [[70, 10, 20], [35, 5, 10], [7, 1, 2]]


def test_groups_are_stratified_as_far_as_possible():
    """As evenly as scikit-learn's StratifiedGroupKFold, which is made for five equal shares."""
    from sklearn.model_selection import StratifiedGroupKFold

    draw = np.random.default_rng(0)
    groups = draw.integers(0, 60, 600)
    labels = (draw.random(60) * 3).astype(int)[groups]
    ours = np.asarray(by_group(groups.tolist(), labels.tolist(), [0.2] * 5, seed=0))
    theirs = np.empty(600, int)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(np.zeros(600), labels, groups)
    for fold, (_, held) in enumerate(folds):
        theirs[held] = fold

    def unevenness(places):
        table = np.zeros((5, 3))
        np.add.at(table, (places, labels), 1)
        return np.abs(table / table.sum(0) - 0.2).max()

    assert unevenness(ours) <= max(0.03, unevenness(theirs))


def test_random_depends_on_the_seed_alone():
    first, again, other = (by_group(range(200), [0] * 200, SHARES, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 pictures in two classes by four patients; picture 0 has a copy in the hands of another patient."""
    root = tmp_path_factory.mktemp("scans")
    for i in range(24):
        place = root / ("ill" if i % 2 else "well") / f"patient{i % 4}_{i:02d}.png"
        place.parent.mkdir(exist_ok=True)
        cloud(i, side=40).save(place)
    cloud(0, side=40).save(root / "well" / "patient3_copy.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def seed_pictures(folder):
    return survey(open_dataset(folder))


def parts_by(division: Division, key) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for picture, part in zip(division.pictures, division.parts):
        found.setdefault(key(picture.name), set()).add(part)
    return found


def patient(name: str) -> str:
    return name.partition("patient")[2][0]


def test_patients_stay_together(seed_pictures):
    plan = SplitPlan(by="group", group=r"patient(\d)", keep_copies=False, val=0, test=0.3)
    division = divide(seed_pictures, plan)
    assert all(len(parts) == 1 for parts in parts_by(division, patient).values())
    assert set(division.parts) == {"train", "test"}


def test_copies_draw_their_groups_together(seed_pictures):
    division = divide(seed_pictures, SplitPlan(by="group", group=r"patient(\d)", test=0.3))
    found = parts_by(division, patient)
    assert found["0"] == found["3"] and len(found["0"]) == 1


@pytest.mark.parametrize("keep_copies", [False, True])
def test_as_a_set_grows_no_image_moves_but_near_copies(seed_pictures, keep_copies):
    plan = SplitPlan(val=0.2, test=0.3, keep_copies=keep_copies)
    few = replace(seed_pictures, pictures=seed_pictures.pictures[:14])
    before, after = (dict(zip((p.name for p in s.pictures), divide(s, plan).parts)) for s in (few, seed_pictures))
    assert len(before) == 14 and len(after) == 25
    copied = {"well/patient0_00.png", "well/patient3_copy.jpg"} if keep_copies else set()
    assert {name for name, part in before.items() if after[name] != part} <= copied


@pytest.mark.parametrize(("by", "seed"), [("hash", None), *(("random", seed) for seed in range(6))])
def test_copies_stay_together_unless_told_otherwise(seed_pictures, by, seed):
    division = divide(seed_pictures, SplitPlan(by=by, seed=seed, val=0.2, test=0.3))
    place = dict(zip((picture.name for picture in division.pictures), division.parts))
    assert place["well/patient0_00.png"] == place["well/patient3_copy.jpg"]


@pytest.mark.parametrize("by", ["hash", "random"])
def test_every_training_image_is_in_one_fold(seed_pictures, by):
    division = divide(seed_pictures, SplitPlan(by=by, folds=3, val=0))
    assert all((fold is None) == (part != "train") for part, fold in zip(division.parts, division.folds))
    assert {fold for fold in division.folds if fold} == {1, 2, 3}


def test_folds_that_cannot_be_held_out_are_refused(tmp_path):
    for name, count in (("many", 8), ("few", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            cloud(i + 10 * count, side=40).save(tmp_path / name / f"{i}.png")
    seen = survey(open_dataset(tmp_path))
    plan = SplitPlan(by="random", val=0, test=0, folds=2)
    assert {fold for fold in divide(seen, plan).folds} == {1, 2}
    with pytest.raises(ResnetkitError, match="no training image is in fold .* of 20; ask for fewer folds"):
        divide(seen, SplitPlan(by="random", val=0, test=0, folds=20))
    (tmp_path / "few" / "1.png").unlink()
    seen = survey(open_dataset(tmp_path))
    with pytest.raises(ResnetkitError, match="class 'few' has 1 image, and none would be left .* ask for other folds"):
        divide(seen, plan)


def test_the_table_is_read_back(seed_pictures, folder, tmp_path):
    plan = SplitPlan(by="random", val=0.2, folds=2)
    division = divide(seed_pictures, plan)
    written = write_division(division, seed_pictures, tmp_path / "tables" / "split.csv")
    assert written == table_paths(tmp_path / "tables" / "split.csv", 2)
    with open(tmp_path / "tables" / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "split", "fold"] and len(rows) == 25
    read = open_dataset(tmp_path / "tables" / "split.csv")
    assert read.classes == ["ill", "well"]
    assert {name: len(part) for name, part in read.parts.items()} == {k: v for k, v in division.counts().items() if v}
    for fold, held_out in enumerate(written[1:], start=1):
        parts = open_dataset(held_out).parts
        own = {picture.name for picture, its in zip(division.pictures, division.folds) if its == fold}
        other = {picture.name for picture, its in zip(division.pictures, division.folds) if its and its != fold}
        found = {part: {"/".join(name.split("/")[-2:]) for name in images.names} for part, images in parts.items()}
        assert found == {"val": own, "train": other}
    again = survey(read)
    assert sorted(p.hash for p in again.pictures) == sorted(p.hash for p in seed_pictures.pictures)


def test_the_table_that_is_read_is_not_written_over(folder, tmp_path):
    table = tmp_path / "labels.csv"
    paths = sorted(folder.rglob("*.png"))
    table.write_text("path,kind\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    (tmp_path / "same.csv").symlink_to(table)
    for source, path in ((f"{table}:kind", table), (f"{table}:kind", tmp_path / "same.csv"), (str(folder), folder)):
        with pytest.raises(ResnetkitError, match="is what the images are read from; choose another --out"):
            require_other(path, source)
    for source in (f"{table}:kind", "digits"):
        require_other(tmp_path / "split.csv", source)


def test_an_image_of_the_set_is_not_written_over(folder):
    seen, image = survey(open_dataset(folder)), next(folder.rglob("*.png"))
    before = image.read_bytes()
    with pytest.raises(ResnetkitError, match="is one of the images; choose another --out"):
        write_division(divide(seen, SplitPlan()), seen, image)
    assert image.read_bytes() == before


@pytest.mark.parametrize("name", ["a|b", "a "])
def test_a_class_name_that_would_be_read_otherwise_is_not_written(name, tmp_path):
    for each in (name, "c"):
        (tmp_path / "set" / each).mkdir(parents=True)
        for i in range(3):
            cloud(i + len(each), side=40).save(tmp_path / "set" / each / f"{i}.png")
    seen = survey(open_dataset(tmp_path / "set"))
    with pytest.raises(ResnetkitError, match=r"is empty, has a blank at an end or a \| in it; rename it"):
        write_division(divide(seen, SplitPlan()), seen, tmp_path / "split.csv")
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"by": "date"}, "by must be hash, group, random"),
        ({"val": 0.5, "test": 0.5}, "leave some to train on"),
        ({"folds": 1}, "at least 2"),
        ({"by": "random", "seed": -1}, "seed must be 0 or more; got -1"),
        ({"by": "hash", "group": "(x)"}, "group goes with by group"),
        ({"by": "group"}, "the folders are the classes"),
        ({"by": "group", "group": "patient"}, "needs one bracket"),
        ({"by": "group", "group": "("}, "no regular expression"),
        ({"by": "group", "group": "camera(.)"}, "finds nothing in"),
    ],
)
def test_refusals(seed_pictures, settings, says):
    with pytest.raises(ResnetkitError, match=says):
        divide(seed_pictures, SplitPlan(**settings))


def test_images_without_files_cannot_be_listed():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    part = Part(images, torch.tensor([0, 1] * 4), [f"x#{i}" for i in range(8)])
    with pytest.raises(ResnetkitError, match="not files of their own"):
        require_files(Dataset("arrays", ["a", "b"], {"all": part}))


def test_a_table_that_would_not_be_read_as_one_is_not_written(folder, tmp_path):
    with pytest.raises(ResnetkitError, match=r"s2.txt: a split is a CSV.*end --out with .csv"):
        require_other(tmp_path / "s2.txt", str(folder))


@pytest.mark.parametrize("by", ["hash", "random"])
def test_every_class_keeps_an_image_to_train_on(folder, tmp_path, by):
    shutil.copytree(folder, tmp_path / "set")
    for i in range(4):
        (tmp_path / "set" / f"rare{i}").mkdir()
        cloud(100 + i, side=40).save(tmp_path / "set" / f"rare{i}" / "1.png")
    seen = survey(open_dataset(tmp_path / "set"))
    with pytest.raises(ResnetkitError, match=r"class 'rare.' has 1 image, and none would be left to train on"):
        divide(seen, SplitPlan(by=by, val=0.3, test=0.5))
