"""From a table of images with none, one or several labels to answers: the whole way, on rows of handwritten digits."""

import csv
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn import metrics as sk
from typer.testing import CliRunner

import resnetkit as rk
from resnetkit.cli.main import app
from resnetkit.errors import ResnetkitError
from resnetkit.inference.results import answer_to_file, line
from resnetkit.training.prepare import prepare
from resnetkit.weights.calibration import MultilabelCalibration
from tests.digit_rows import write_rows
from tests.weights.test_model_file import small_model

SETTINGS = {"recipe": "digits", "model": "resnet8_cifar", "precision": "float32", "batch_size": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows", train=700, test=200)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return rk.train(data, out=tmp_path_factory.mktemp("runs") / "run", epochs=5, holdout=0.15, **SETTINGS)


@pytest.fixture(scope="module")
def other(data, tmp_path_factory):
    """One epoch of everything that works on labels, without a holdout."""
    settings = SETTINGS | {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1, "balance": "weights", "accumulate": 2}
    return rk.train(data, out=tmp_path_factory.mktemp("runs") / "other", epochs=1, **settings)


def test_easy_images_cannot_be_passed_over(data, tmp_path):
    with pytest.raises(ResnetkitError, match="prune_easy is for images of one label each"):
        rk.train(data, out=tmp_path / "run", epochs=4, prune_easy=0.2, **SETTINGS)
    assert prepare(data, "cifar10_fast", {"img_size": 16}, 0.0).recipe.prune_easy == 0  # of a recipe that comes along


def truth(data) -> dict[str, list[str]]:
    return {row["path"]: row["labels"].split("|") if row["labels"] else [] for row in csv.DictReader(data.open())}


def probabilities(model, paths) -> np.ndarray:
    """The sigmoid of the network's logits at the stored temperature, without the predictor."""
    preprocessing = model.preprocessing
    frames = torch.stack([preprocessing.frame(preprocessing.decode(path)) for path in paths])
    with torch.no_grad():
        logits = model.network.eval()(preprocessing.normalise(frames)).double().numpy()
    return 1 / (1 + np.exp(-logits / model.calibration.temperature))


def test_it_learns(run):
    """Chance would rank with a mean average precision of the classes' share, below 0.2."""
    shares = [row["n"] / 200 for row in run.metrics["per_class"]]
    assert np.mean(shares) < 0.2 and run.metrics["map"] > 0.5
    assert run.metrics["map_interval"][0] > 0.45
    epochs = list(csv.DictReader((run.folder / "results.csv").open()))
    best = max(float(row["holdout_map"]) for row in epochs)
    assert float(epochs[-1]["train_label_accuracy"]) > float(epochs[0]["train_label_accuracy"])
    events = [json.loads(text) for text in (run.folder / "log.jsonl").read_text().splitlines()]
    assert best == max(event.get("holdout_map", 0) for event in events) > 0.5


def test_figures_are_those_of_the_files_that_lie_there(run, data):
    """What predictions.csv says against the labels, by scikit-learn."""
    wanted = truth(data)
    rows = list(csv.DictReader((run.folder / "evaluation/predictions.csv").open()))
    assert all(row["class"] == "|".join(wanted[row["path"]]) for row in rows) and len(rows) == 200
    classes = [str(digit) for digit in range(10)]
    table = {key: np.array([[c in row[key].split("|") for c in classes] for row in rows]) for key in rows[0]}
    assert run.metrics["micro_f1"] == pytest.approx(sk.f1_score(table["class"], table["predicted"], average="micro"))
    assert run.metrics["macro_f1"] == pytest.approx(sk.f1_score(table["class"], table["predicted"], average="macro"))
    assert run.metrics["exact_match"] == sk.accuracy_score(table["class"], table["predicted"])
    assert run.metrics["loss"] == pytest.approx(np.mean([float(row["loss"]) for row in rows]), abs=1e-6)
    mistakes = [float(row["loss"]) for row in csv.DictReader((run.folder / "evaluation/mistakes.csv").open())]
    assert mistakes == sorted(mistakes, reverse=True) and len(mistakes) == round(200 * (1 - run.metrics["exact_match"]))
    assert not list(run.folder.rglob("confusion*"))


def test_the_model_file_knows_its_task_and_thresholds(run):
    model = run.model
    assert model.task == "multilabel" and model.calibration.data == "holdout"
    assert model.metrics == {name: run.metrics[name] for name in model.metrics} and "map_interval" in model.metrics
    thresholds = [row["threshold"] for row in run.metrics["per_class"]]
    assert list(model.calibration.thresholds) == thresholds and len(set(thresholds)) == 10
    assert rk.evaluate(run.folder) == json.loads((run.folder / "evaluation/metrics.json").read_text())
    assert small_model().task == "classification"


def test_without_a_holdout_a_label_is_what_is_likelier_than_not(other):
    assert {row["threshold"] for row in other.metrics["per_class"]} == {0.5} and other.model.calibration.n == 0
    assert "ece_uncalibrated" not in other.metrics


def check_answers(model, paths):
    """Whether a predictor's answers are those of the sigmoid and the stored thresholds."""
    likely, thresholds = probabilities(model, paths), model.calibration.decision_thresholds(10)
    for answer, p in zip(rk.Predictor(model, top=10).predict(paths), likely):
        order = p.argsort()[::-1]
        assert [name for name, _ in answer["top"]] == [str(i) for i in order]
        assert [value for _, value in answer["top"]] == pytest.approx(p[order].tolist(), rel=1e-4)
        assert answer["labels"] == [str(i) for i in order if p[i] >= thresholds[i]]
        assert answer["label"] == (answer["labels"] or [None])[0]


def test_answers_are_those_of_sigmoid_and_thresholds(run, data):
    paths = sorted(data.parent.glob("test*.png"))[:60]
    check_answers(run.model, paths)


@pytest.mark.parametrize(
    ("method", "mutant"),
    [
        ("probabilities", lambda self, logits: (logits.double() / self.temperature).softmax(1)),
        ("thresholds_for", lambda self, classes, coverage, certainty: {"thresholds": (0.5,) * classes}),
    ],
    ids=["softmax in place of sigmoid", "thresholds ignored"],
)
def test_the_guard_can_fail(run, data, monkeypatch, method, mutant):
    model, paths = run.model, sorted(data.parent.glob("test*.png"))[:60]
    monkeypatch.setattr(MultilabelCalibration, method, mutant)
    with pytest.raises(AssertionError):
        check_answers(model, paths)


def test_answers_as_text_and_files(run, data, tmp_path):
    predictor, paths = rk.Predictor(run.folder), sorted(data.parent.glob("test*.png"))[:20]
    answers = list(predictor.predict(paths))
    assert list(answers[0]) == ["path", "label", "probability", "top", "labels"]
    told = {"path": "x", "label": "7", "probability": 0.9, "top": [["7", 0.9], ["1", 0.25]], "labels": ["7"]}
    assert line(told, "table") == "x: 7 (7 90.0%, 1 25.0%)"
    assert line(told | {"label": None, "labels": []}, "table") == "x: none of these (7 90.0%, 1 25.0%)"
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        list(answer_to_file(predictor, paths, tmp_path / name, name[2:]))
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    wanted = [answer["labels"] for answer in answers]
    assert [json.loads(row["labels"]) for row in rows] == wanted
    assert pq.read_table(tmp_path / "a.parquet").column("labels").to_pylist() == wanted
    assert [json.loads(text)["labels"] for text in (tmp_path / "a.jsonl").read_text().splitlines()] == wanted


def test_what_is_for_one_label_an_image_is_refused(run, data, tmp_path):
    image = str(data.parent / "test0.png")
    for options in (["--certainty", "0.9"], ["--coverage", "0.9"], ["--sort-into", str(tmp_path / "sorted")]):
        found = CliRunner().invoke(app, ["predict", str(run.folder), image, *options])
        assert isinstance(found.exception, ResnetkitError) and "\n" not in str(found.exception)
    with pytest.raises(ResnetkitError, match="one label each .* and the model is for multilabel"):
        rk.evaluate(run.folder, "digits")


def test_what_the_commands_print(run, other):
    text = CliRunner().invoke(app, ["evaluate", str(run.folder)]).output
    assert re.match(r"test: mean average precision \d\d\.\d\d% \(95 % interval .*exact match .* 200 images\n", text)
    text = CliRunner().invoke(app, ["evaluate", str(run.folder), str(other.folder)]).output
    assert text.startswith("test, 200 images: exact match ") and "McNemar" in text
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(run.folder), "--json"]).output)
    assert facts["task"] == "multilabel"


def test_the_page_has_what_applies(run, other):
    for finished in (run, other):
        page = (finished.folder / "report.html").read_text()
        assert f'<data value="{finished.metrics["map"]}">' in page
        anchors = re.findall(r'<section id="(\w+)"', page)
        assert {"labels", "mistakes", "curves", "calibration", "data"} <= set(anchors)
        assert not {"confusion", "classes"} & set(anchors)
    page = (run.folder / "report.html").read_text()
    held_out = re.search(r'<line class="line (s\d)"[^<]*</svg> held-out', page)[1]
    assert (
        re.search(r'Mean average precision</figcaption>.*?<polyline class="line (s\d)"', page, re.DOTALL)[1] == held_out
    )
    images = int(
        re.search(r'class="name">0</th><td class="number">(\d+)', (other.folder / "report.html").read_text())[1]
    )
    rows = csv.DictReader((other.folder / "split.csv").open())
    assert images == sum("0" in row["class"].split("|") for row in rows if row["split"] == "train")
