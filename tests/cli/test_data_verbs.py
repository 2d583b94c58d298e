"""resnet data check|split|stats, as a user types them."""

import json

import pytest

from resnetkit.tables import read_csv
from resnetkit.training.prepare import prepare, read_source
from tests.cli.test_cli import resnet
from tests.data.test_duplicates import cloud, encoded
from tests.data.test_health import make, sound


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaky")
    images = sound()
    images["val/cat/again.jpg"] = encoded(cloud(0, side=64), "JPEG", quality=60)
    images["train/dog/bad.png"] = b"\x89PNG\r\n\x1a\nbroken"
    make(folder, images)
    return folder


def test_check_prints_the_leak_first_and_fails_only_when_strict(leaky):
    done = resnet("data", "check", leaky)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("30 images of 2 classes; train 20, val 9")
    assert lines[2].startswith("LEAK: 1 of 9 held-out images") and "val/cat/again.jpg" in lines[3]
    assert "bad.png" in done.stdout
    assert resnet("data", "check", leaky, "--strict").returncode == 2


def test_a_folder_without_parts_is_looked_at_as_training_divides_it(tmp_path):
    images = {f"{kind}/{i}.png": cloud(i + 20 * (kind == "dog"), side=64) for kind in ("cat", "dog") for i in range(10)}
    copies = {name.replace(".png", "-again.jpg"): encoded(x, "JPEG", quality=60) for name, x in images.items()}
    make(tmp_path, {name: encoded(x) for name, x in images.items()} | copies)
    tested = set(prepare(tmp_path, None, {"epochs": 1}, 0.0).parts["test"].names)
    done = resnet("data", "check", tmp_path, "--strict", "--out", tmp_path.with_name("found"))
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[0].endswith("train 32, test 8, as training divides them")
    assert "LEAK: " in done.stdout and "resnet data split DATA --out split.csv" in done.stdout
    rows = read_csv(tmp_path.with_name("found") / "findings.csv")
    leaks = {row["what"] for row in rows if row["finding"] == "leak"}
    assert leaks and leaks <= tested
    table = tmp_path.with_name("split.csv")
    assert resnet("data", "split", tmp_path, "--out", table).returncode == 0
    assert resnet("data", "check", table, "--strict").returncode == 0


def test_what_training_refuses_is_looked_at_and_the_refusal_told(tmp_path):
    make(tmp_path, {f"cat/{i}.png": encoded(cloud(i, side=64)) for i in range(4)})
    done = resnet("data", "check", tmp_path)
    assert done.returncode == 0 and "training refuses it: " in done.stdout and "two classes are needed" in done.stdout
    record = json.loads(resnet("data", "check", tmp_path, "--json").stdout)
    assert "two classes are needed" in record["refused_by_training"] and not record["divided_by_training"]


def test_check_json_and_files(leaky, tmp_path):
    done = resnet("data", "check", leaky, "--json", "--out", tmp_path / "out", "--max-bad", "0")
    assert done.returncode == 3 and "1 of 30 images cannot be read" in done.stderr
    record = json.loads(done.stdout)
    assert record["grave"] and record["unreadable"] == 1 and record["parts"] == {"train": 20, "val": 9}
    assert {"leak", "unreadable"} <= {finding["kind"] for finding in record["findings"]}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "contact_sheet.png",
        "duplicates.csv",
        "findings.csv",
    ]


def test_check_sees_what_training_would(tmp_path):
    """The size is that of the recipe which `resnet train` takes for these images."""
    make(tmp_path, {f"{c}/{i}.png": encoded(cloud(i + 9 * (c == "a"), side=150)) for c in "ab" for i in range(3)})
    size = read_source(tmp_path, None, {"epochs": 1}, 0.0).recipe.img_size
    assert size < 150

    def small(*flags):
        findings = json.loads(resnet("data", "check", tmp_path, "--json", *flags).stdout)["findings"]
        return [finding["message"] for finding in findings if finding["kind"] == "small"]

    assert small() == []
    assert small("--img-size", "160") == ["6 images smaller than the network's 160x160 pixels"]


def test_files_of_no_part_are_not_counted_as_unreadable(tmp_path):
    """As in training: they are told, and none of the images that --max-bad is a share of."""
    make(tmp_path, sound() | {f"loose{i}.png": encoded(cloud(i, side=64)) for i in range(10)})
    done = resnet("data", "check", tmp_path, "--max-bad", "0")
    assert done.returncode == 0, done.stderr
    assert "loose0.png" in done.stdout and "are of no part" in done.stdout
    assert json.loads(resnet("data", "check", tmp_path, "--json").stdout)["unreadable"] == 0
    assert json.loads(resnet("data", "stats", tmp_path, "--json").stdout)["unreadable"] == 0
    (tmp_path / "train" / "cat" / "bad.png").write_bytes(b"no image")
    done = resnet("data", "check", tmp_path, "--max-bad", "0")
    assert done.returncode == 3 and f"1 of {len(sound()) + 1} images cannot be read" in done.stderr


def test_stats(leaky):
    table = resnet("data", "stats", leaky).stdout
    assert table.splitlines()[1].split() == ["cat", "10", "5"]
    record = json.loads(resnet("data", "stats", leaky, "--json").stdout)
    assert record["images"] == 29 and record["classes"]["cat"] == {"train": 10, "val": 5}


def test_split_mends_the_leak(leaky, tmp_path):
    table = tmp_path / "my split.csv"
    done = resnet("data", "split", leaky, "--by", "random", "--test", "0.3", "--out", table)
    assert done.returncode == 0 and f"next: resnet train '{table}'" in done.stdout
    record = json.loads(resnet("data", "check", table, "--json").stdout)
    assert sum(record["parts"].values()) == 29
    assert "leak" not in {finding["kind"] for finding in record["findings"]}


def test_each_fold_has_a_table_that_trains(leaky, tmp_path):
    done = resnet("data", "split", leaky, "--by", "random", "--folds", 2, "--out", tmp_path / "split.csv", "--json")
    record = json.loads(done.stdout)
    assert record["folds"] == [str(tmp_path / f"split-fold{fold}.csv") for fold in (1, 2)]
    checked = json.loads(resnet("data", "check", record["folds"][0], "--json").stdout)
    assert sum(checked["parts"].values()) == record["train"]
    done = resnet("data", "split", record["folds"][0], "--folds", 2, "--out", tmp_path / "split.csv")
    assert done.returncode == 2 and "is what the images are read from" in done.stderr
    flags = ("--model", "resnet8_cifar", "--epochs", 1, "--img-size", 16, "--json")
    trained = json.loads(resnet("train", record["folds"][1], *flags, cwd=tmp_path).stdout)
    assert trained["split"] == "val"


def test_refusals_are_one_line(leaky, tmp_path):
    for arguments, says in [
        (["split", leaky, "--out", tmp_path / "x.csv", "--by", "size"], "by must be"),
        (["split", "digits", "--out", tmp_path / "x.csv"], "not files of their own"),
        (["split", leaky, "--out", leaky], "is what the images are read from"),
        (["split", leaky, "--out", tmp_path / "x.csv", "--seed", "1"], "seed goes with by random or group"),
        (["check", leaky, "--framing", "crob"], "framing 'crob': did you mean crop?"),
    ]:
        done = resnet("data", *arguments)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
