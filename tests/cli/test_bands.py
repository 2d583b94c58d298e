"""A set of five-band images from the folder to the report, by the command."""

import csv
import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

import resnetkit as rk
from resnetkit.training.prepare import prepare
from tests.cli.test_cli import resnet

CLASSES = ("field", "water")


def bands(name, i, height, width):
    """Field is bright in the last band, water in the second: neither shows in the others."""
    generator = np.random.default_rng(1000 * i + len(name))
    image = generator.integers(0, 30000, (height, width, 5), dtype=np.uint16)
    image[..., 4 if name == "field" else 1] += 30000
    return image


def write_set(folder, height, width, suffix):
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(12):
            image = bands(name, i, height + (i if height > 64 else 0), width)
            if suffix == "npy":
                np.save(folder / name / f"{i:02}.npy", image)
            else:
                tifffile.imwrite(folder / name / f"{i:02}.tif", image, photometric="minisblack", planarconfig="contig")
    return folder


SMALL = {"height": 16, "width": 12, "suffix": "npy"}
PHOTOS = {"height": 70, "width": 80, "suffix": "tif"}
FLAGS = {12: (), 80: ("--recipe", "photos", "--img-size", "24")}


@pytest.fixture(scope="module", params=[SMALL, PHOTOS], ids=["small", "photos"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    data = write_set(folder / "data", **request.param)
    flags = FLAGS[request.param["width"]]
    done = resnet("train", data, "--model", "resnet8_cifar", "--epochs", 1, "--out", folder / "run", "--json", *flags)
    assert done.returncode == 0, done.stderr
    return data, folder / "run", json.loads(done.stdout), done.stderr


def test_the_network_has_a_channel_a_band(trained):
    data, run, result, said = trained
    assert "in 5 bands" in said and 0 <= result["top1"] <= 1
    assert json.loads((run / "preprocessing.json").read_text())["channels"] == "5"
    assert rk.load(run).network.spec.in_channels == 5


def test_moments_are_those_of_the_training_images(trained):
    data, run, _, _ = trained
    rows = [row for row in csv.DictReader((run / "split.csv").open()) if row["split"] == "train"]
    read = np.load if rows[0]["path"].endswith("npy") else tifffile.imread
    images = [(read(data / row["path"]).astype(np.float64) // 257) / 255 for row in rows]
    mean = np.mean([image.mean((0, 1)) for image in images], 0)
    std = np.sqrt(np.mean([np.square(image).mean((0, 1)) for image in images], 0) - mean**2)
    record = json.loads((run / "preprocessing.json").read_text())
    assert record["mean"] == pytest.approx(mean, abs=6e-5) and record["std"] == pytest.approx(std, abs=6e-5)


def test_evaluate_predict_report(trained, tmp_path):
    data, run, result, _ = trained
    assert json.loads(resnet("evaluate", run, "--json").stdout)["top1"] == result["top1"]
    whole = json.loads(resnet("evaluate", run / "model.safetensors", "--data", data, "--json").stdout)
    assert whole["n"] == 24
    photo = tmp_path / "photo.png"
    Image.new("RGB", (20, 20)).save(photo)
    done = resnet("predict", run, data, photo, "--json", "--max-bad", 1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 24 and {answer["label"] for answer in answers} <= set(CLASSES)
    assert "photo.png: a picture, where an image of 5 bands is wanted" in done.stderr
    done = resnet("report", run)
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text()
    assert "data:image/" in page


def test_data_check_and_stats(trained, tmp_path):
    data, *_ = trained
    figures = json.loads(resnet("data", "stats", data, "--json").stdout)
    assert figures["channels"] == {"5": 24} and len(figures["mean"]) == len(figures["std"]) == 5
    assert "24 of 5 bands, 0 unreadable" in resnet("data", "stats", data).stdout
    done = resnet("data", "check", data, "--out", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    sheet = Image.open(io.BytesIO((tmp_path / "found" / "contact_sheet.png").read_bytes()))
    assert sheet.mode == "RGB" and np.asarray(sheet).std() > 10


def test_erasing_mixing_and_fine_tuning_work(trained, tmp_path):
    data, run, _, _ = trained
    flags = {"epochs": 1, "img_size": 24, "erasing": 0.5, "mixup": 0.2, "cutmix": 1.0, "holdout": 0.2}
    tuned = rk.train(data, weights=run, out=tmp_path / "tuned", **flags).model.preprocessing
    own = rk.load(run).preprocessing
    assert (tuned.channels, tuned.mean, tuned.std) == (own.channels, own.mean, own.std)


@pytest.mark.parametrize(
    "name, value", [("policy", "trivial"), ("policy", "rand"), ("policy", "augmix"), ("cache", True)]
)
def test_what_is_for_colours_is_refused(trained, name, value):
    with pytest.raises(rk.ResnetkitError) as refused:
        prepare(trained[0], None, {name: value}, max_bad=0.1)
    assert str(refused.value) == (
        f"setting {name}={value!r} is for grey and rgb; these images have 5 bands: leave it out"
    )


def test_a_policy_that_was_written_down_is_refused_not_dropped(tmp_path):
    data = write_set(tmp_path / "data", **PHOTOS)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('model = "resnet8_cifar"\nimg_size = 24\nepochs = 1\nlr = 0.1\npolicy = "rand"\n')
    with pytest.raises(rk.ResnetkitError, match="policy='rand' is for grey and rgb"):
        prepare(data, str(recipe), {}, 0.0)
    assert prepare(data, "photos", {"model": "resnet8_cifar", "img_size": 24}, 0.0).recipe.policy == "none"
