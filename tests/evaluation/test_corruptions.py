"""Accuracy under corruption: what is counted, on which pixels, and what is written."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.data import progress
from resnetkit.data.corruptions import KINDS, corrupt
from resnetkit.data.preprocess import Preprocessing, channels_of
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.corruptions import corruption_curves
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.plots import CORRUPTIONS
from resnetkit.weights.calibration import Calibration, MultilabelCalibration
from tests.weights.test_model_file import small_model


@pytest.fixture
def photos(tmp_path):
    """Photos of several sizes in three classes, which a network of 8x8 pixels sees reduced."""
    for i in range(12):
        folder = tmp_path / "photos" / "abü"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def framed(model, photos):
    """Pixels and labels as the network sees them, in the order of the set."""
    paths = sorted(photos.rglob("*.png"), key=str)
    images = torch.stack([model.preprocessing.frame(model.preprocessing.decode(path)) for path in paths])
    return images, torch.tensor(["abü".index(path.parent.name) for path in paths])


def test_every_kind_is_drawn():
    assert [kind for kinds in CORRUPTIONS.values() for kind in kinds] == list(KINDS)


def test_counts_are_those_of_framed_and_corrupted_pixels(photos, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    model = small_model()
    figures = rk.evaluate(model, photos, corruptions=True, batch_size=8)
    found = figures["corruptions"]
    assert found["clean_top1"] == figures["top1"]
    assert "batches of corrupted images: 2 of 150" in capsys.readouterr().err
    images, labels = framed(model, photos)
    corrupted = torch.cat([corrupt(images, kind, severity) for kind in KINDS for severity in range(1, 6)])
    with torch.inference_mode():
        predicted = model.network.eval()(model.preprocessing.normalise(corrupted)).argmax(1)
    right = (predicted.reshape(75, 12) == labels).sum(1).tolist()
    rows = [row for kind in KINDS for row in found["kinds"][kind]]
    assert [row["severity"] for row in rows] == [1, 2, 3, 4, 5] * 15
    assert [row["top1"] for row in rows] == [hits / 12 for hits in right]
    assert [row["top1_interval"] for row in rows] == [wilson_interval(hits, 12) for hits in right]
    assert found["mean_top1"] == pytest.approx(sum(right) / 75 / 12)
    assert len(set(right)) > 1, "the network must notice something for the comparison to mean anything"


def test_batches_go_on_counting():
    """The second batch's images are other numbers of the set than the first's, so their noise is another."""
    seen = []
    images = torch.full((2, 1, 8, 8), 128, dtype=torch.uint8)
    labels = torch.tensor([0, 0])

    def answer_batch(batch):
        seen.append(batch[0])
        return Answers(torch.eye(3)[[0, 0]], batch[1])

    found = corruption_curves([(images, labels), (images, labels)], 2, answer_batch, 1.0)
    assert found["mean_top1"] == 1 and len(seen) == 150
    assert not torch.equal(seen[0], seen[75])
    assert torch.equal(torch.cat([seen[0], seen[75]]), corrupt(torch.cat([images, images]), "gaussian_noise", 1))


def test_of_equal_answers_the_one_counts_that_is_given():
    def answer_batch(batch):
        return Answers(torch.zeros(1, 10), batch[1])

    right = Answers(torch.zeros(1, 10), torch.tensor([0])).predicted
    found = corruption_curves([(torch.full((1, 1, 8, 8), 128, dtype=torch.uint8), right)], 1, answer_batch, 1.0)
    assert found["mean_top1"] == 1


def test_what_is_written(photos, tmp_path):
    figures = rk.evaluate(small_model(), photos, corruptions=True, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == figures
    with (tmp_path / "out/corruptions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["kind", "severity", "top1", "top1_low", "top1_high"] and len(rows) == 75
    for row in rows:
        expected = figures["corruptions"]["kinds"][row["kind"]][int(row["severity"]) - 1]
        assert float(row["top1"]) == expected["top1"]
        assert [float(row["top1_low"]), float(row["top1_high"])] == expected["top1_interval"]
    assert Image.open(tmp_path / "out/plots/corruptions.png").size > (900, 300)


@pytest.mark.parametrize("what", ["bands", "labels"])
def test_what_has_no_corruptions_is_refused_before_anything_is_read(what):
    net = rk.build("resnet8_cifar", 2, in_channels=5 if what == "bands" else 3)
    flat = (0.5,) * net.spec.in_channels
    pixels = Preprocessing(size=(8, 8), framing="squash", channels=channels_of(len(flat)), mean=flat, std=flat)
    calibration = MultilabelCalibration() if what == "labels" else Calibration()
    model = rk.Model(net, ["a", "b"], pixels, calibration=calibration)
    with pytest.raises(ResnetkitError, match="5 bands" if what == "bands" else "one label"):
        rk.evaluate(model, "no such data", corruptions=True)
