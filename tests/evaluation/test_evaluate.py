"""Evaluation as it is called: files, slices, calibration on other images."""

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.data.datasets import Part, digits, open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.errors import Diverged, ResourceExhausted
from resnetkit.evaluation.answers import Answers, answer, judge
from resnetkit.evaluation.compare import compare
from resnetkit.evaluation.evaluate import Computing, calibrate
from resnetkit.evaluation.files import write_evaluation
from resnetkit.evaluation.own_images import given_images, seen_in_training
from resnetkit.evaluation.slices import Look, look, looks, slices
from resnetkit.export.card import card
from resnetkit.weights.files import load_model
from tests.conftest import LargestTensor
from tests.weights.test_model_file import small_model


def rows(path):
    return list(csv.DictReader(path.open()))


def test_what_is_written(digits_runs, tmp_path):
    figures = rk.evaluate(digits_runs[0], out=tmp_path / "out")
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == figures
    predictions, mistakes = rows(out / "predictions.csv"), rows(out / "mistakes.csv")
    assert list(predictions[0]) == list(mistakes[0]) == ["path", "class", "predicted", "probability"]
    assert len(predictions) == 359
    assert len(mistakes) == round(359 * (1 - figures["top1"]))
    sure = [float(row["probability"]) for row in mistakes]
    assert sure == sorted(sure, reverse=True)
    confusion = [[int(row[str(k)]) for k in range(10)] for row in rows(out / "confusion_matrix.csv")]
    assert confusion == figures["confusion_matrix"] and sum(map(sum, confusion)) == 359
    for row, expected in zip(rows(out / "per_class.csv"), figures["per_class"], strict=True):
        assert row["class"] == expected["class"] and float(row["recall"]) == expected["recall"]
        assert [float(row["recall_low"]), float(row["recall_high"])] == expected["recall_interval"]
    bins = rows(out / "reliability.csv")
    gaps = sum(int(b["n"]) * abs(float(b["confidence"]) - float(b["accuracy"])) for b in bins)
    assert gaps / 359 == pytest.approx(figures["ece"], abs=1e-12)
    for name in ("confusion_matrix", "reliability", "precision_recall", "roc"):
        assert Image.open(out / "plots" / f"{name}.png").size > (300, 300)
    with pytest.raises(rk.ResnetkitError, match="would be overwritten"):
        rk.evaluate(digits_runs[0], out=out)


def test_every_interval_holds_its_figure_and_says_its_kind(digits_runs):
    figures = rk.evaluate(digits_runs[0])
    names = [key.removesuffix("_interval") for key in figures if key.endswith("_interval")]
    assert set(names) | {"recall"} == set(figures["intervals"])
    for name in names:
        low, high = figures[f"{name}_interval"]
        assert low <= figures[name] <= high
    json.dumps(figures, allow_nan=False)


def draw_plots(folder, classes):
    answers = Answers(9 * torch.eye(2).repeat(20, 1), torch.tensor([0, 1, 0, 0]).repeat(10))
    figures = {"split": "test"} | judge(answers, classes)
    write_evaluation(folder, folder, [str(i) for i in range(40)], classes, answers, figures)
    return [(folder / f"{name}.png").read_bytes() for name in ("precision_recall", "roc")]


def test_an_out_that_cannot_be_is_told_before_anything_is_measured(digits_runs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Computing, "answers", None)
    with pytest.raises(rk.ResnetkitError, match="file/x: .*; choose another --out"):
        rk.evaluate(digits_runs[0], out=tmp_path / "file" / "x")


def test_a_network_goes_back_to_where_its_owner_had_it(monkeypatch):
    places = []
    monkeypatch.setattr(ResNet, "place", lambda net, device: places.append(device.type) or net)
    computing = Computing(torch.device("cuda"), torch.float32, batch_size=1, workers=0)
    with pytest.raises(ResourceExhausted), computing._placed(small_model().network):
        assert places == ["cuda"]
        raise ResourceExhausted("full")
    assert places == ["cuda", "cpu"]


def test_a_mistake_between_two_classes_of_one_name_is_one(tmp_path):
    draw_plots(tmp_path, ["crane", "crane"])
    mistakes = list(csv.DictReader((tmp_path / "mistakes.csv").open()))
    assert len(mistakes) == 10 and {row["class"] for row in mistakes} == {"crane (0)"}
    assert [row["class"] for row in csv.DictReader((tmp_path / "per_class.csv").open())] == ["crane (0)", "crane (1)"]


def test_plots_have_every_class_by_its_name(tmp_path):
    first, second = (draw_plots(tmp_path / name, [r"$\frac$ off", name]) for name in ("_cat", "_dog"))
    assert all(one != other for one, other in zip(first, second))


def test_a_full_gpu_is_one_line(digits_runs, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(ResNet, "forward", full)
    for run in (lambda: rk.evaluate(digits_runs[0], device="cpu"), lambda: compare(*digits_runs[:2], device="cpu")):
        with pytest.raises(ResourceExhausted, match="cpu has too little memory; lower batch_size"):
            run()


def test_a_network_that_could_not_answer_goes_on_training():
    model = small_model()
    model.network.train()

    def full(net, x):
        raise ResourceExhausted("the GPU's memory is full")

    batches = [(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(ResourceExhausted):
        answer(model.network, batches, model.preprocessing, forward=full)
    assert model.network.training


def test_no_mistake_is_not_certainty():
    figures = judge(Answers(9 * torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)), ["a", "b", "c"])
    assert figures["balanced_accuracy"] == figures["macro_f1"] == 1
    assert figures["balanced_accuracy_interval"] == figures["macro_f1_interval"] == figures["top1_interval"]
    assert figures["top1_interval"][0] < 0.95
    assert figures["ece_interval"][1] > 0.04


def test_no_right_answer_is_not_certainty():
    figures = judge(Answers(9 * torch.eye(3).repeat(20, 1), torch.tensor([1, 2, 0]).repeat(20)), ["a", "b", "c"])
    assert figures["balanced_accuracy"] == figures["macro_f1"] == 0
    assert figures["balanced_accuracy_interval"] == figures["macro_f1_interval"] == figures["top1_interval"]
    assert figures["ece_interval"][0] < 0.96


@pytest.fixture
def photos(tmp_path):
    """Two classes from two cameras; the second camera's photos are large and bright."""
    for name in ("a", "b"):
        for camera, side, base in (("near", 20, 0), ("far", 40, 170)):
            folder = tmp_path / "photos" / name / camera
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = np.random.default_rng(i).integers(base, base + 80, (side, side + 9), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_slices_of_photos(photos):
    figures = rk.evaluate(small_model(), photos)
    found = {kind: [(row["slice"], row["n"]) for row in table] for kind, table in figures["slices"].items()}
    assert found["size"] == [("16 to 31 px", 12), ("32 to 63 px", 12)]
    assert found["brightness"] == [("0 to 20 % bright", 12), ("80 to 100 % bright", 12)]
    assert sorted(found["folder"]) == [("a/far", 6), ("a/near", 6), ("b/far", 6), ("b/near", 6)]
    for table in figures["slices"].values():
        assert sum(row["n"] * row["top1"] for row in table) == pytest.approx(24 * figures["top1"])
        assert all(row["top1_interval"][0] <= row["top1"] <= row["top1_interval"][1] for row in table)
    shares = [row["top1"] for row in figures["slices"]["folder"]]
    assert shares == sorted(shares)


def test_what_is_left_out_is_told(photos, capsys):
    rk.evaluate(small_model(), photos)
    assert "left out" not in capsys.readouterr().err
    (photos / "a" / "link.png").symlink_to("/etc/hostname")
    (photos / "loose.png").write_bytes((photos / "a" / "far" / "0.png").read_bytes())
    (photos / "b" / "broken.png").write_bytes(b"no image")
    assert rk.evaluate(small_model(), photos, max_bad=0.1)["n"] == 24
    told = capsys.readouterr().err
    assert "bad    3 files of photos are left out; a/link.png, for one: a link out of the folder" in told


def test_answers_that_are_no_numbers_are_no_figures(photos):
    model = small_model()
    model.network.head.classifier.bias.data[0] = torch.nan
    with pytest.raises(Diverged, match="the network's answers to all images are not finite"):
        rk.evaluate(model, photos)
    with pytest.raises(Diverged, match="not finite"):
        rk.compare(small_model(), model, photos)


def test_slices_that_say_nothing_are_left_out():
    right, labels = torch.tensor([True, False]), torch.tensor([0, 1])
    assert slices(right, labels, ["a/1", "b/2"], [Look(32, 0.5)] * 2) == {}
    assert list(slices(right, labels, ["x/1", "x/2"], [Look(32, 0.5), Look(64, 0.5)])) == ["size"]


def test_looks_of_a_part_are_those_of_its_images(photos):
    paths = sorted(photos.rglob("*.png"))
    seen = looks(Part(paths, torch.zeros(len(paths), dtype=torch.long), [str(p) for p in paths]))
    for path, found in zip(paths, seen):
        with Image.open(path) as image:
            assert found.side == min(image.size)
            assert found.brightness == pytest.approx(np.asarray(image).mean() / 255, abs=1e-6)
    pixels = torch.full((2, 1, 5, 7), 51, dtype=torch.uint8)
    assert looks(Part(pixels, torch.zeros(2), ["", ""])) == [look(pixels[0].expand(3, 5, 7))] * 2 == [Look(5, 0.2)] * 2


def test_a_large_photo_is_not_copied_to_look_at_it():
    pixels = torch.randint(0, 256, (3, 500, 700), dtype=torch.uint8)
    with LargestTensor() as largest:
        brightness = look(pixels).brightness
    assert largest.bytes <= pixels.nbytes
    assert brightness == pytest.approx(float(pixels.double().mean()) / 255, abs=1e-12)


def test_calibrating_on_other_images_is_kept_and_used(digits_runs, tmp_path):
    """On the training images, for there are no others here; the run's own test part is then measured."""
    model = tmp_path / "m.safetensors"
    model.write_bytes((digits_runs[0] / "model.safetensors").read_bytes())
    write_digits(tmp_path / "train", digits().parts["train"].take(torch.arange(300)))
    write_digits(tmp_path / "test", digits().parts["test"].take(torch.arange(150)))
    before = rk.evaluate(model, tmp_path / "test")
    after = rk.evaluate(model, tmp_path / "test", calibrate=tmp_path / "train")
    assert after["temperature"] != 1 and after["ece_uncalibrated"] == before["ece"]
    assert after["ece"] < before["ece"] and after["top1"] == before["top1"]
    assert rk.evaluate(model, tmp_path / "test") == after
    stored = load_model(model)
    assert stored.calibration.n == 300 and stored.calibration.temperature == after["temperature"]
    assert rk.Predictor(model)(next((tmp_path / "test").rglob("*.png")))["probability"] <= 1
    in_memory = load_model(digits_runs[0] / "model.safetensors")
    assert calibrate(in_memory, tmp_path / "train").calibration.temperature == after["temperature"]
    with pytest.raises(rk.ResnetkitError, match="of its images are among those to test on"):
        rk.evaluate(model, tmp_path / "test", calibrate=tmp_path / "test")


def test_a_run_knows_the_images_it_was_trained_on(digits_runs, tmp_path, capsys):
    """By their pixels where they are small, whatever they were written as; a model file knows none."""
    run, some, others = digits_runs[0], tmp_path / "some", tmp_path / "others"
    write_digits(some, digits().parts["train"].take(torch.arange(30)))
    write_digits(others, digits().parts["test"].take(torch.arange(50)))
    assert rk.evaluate(run, others)["seen_in_training"] == 0
    assert "leak" not in capsys.readouterr().err
    write_digits(some, digits().parts["test"].take(torch.arange(10)))
    assert rk.evaluate(run, some, out=tmp_path / "out")["seen_in_training"] == 30
    assert json.loads((tmp_path / "out/metrics.json").read_text())["seen_in_training"] == 30
    told = capsys.readouterr().err.splitlines()
    assert told == [f"leak   30 of these 40 images are training images of {run}, so the figures flatter"]
    rk.compare(*digits_runs, some)
    assert len([line for line in capsys.readouterr().err.splitlines() if "leak   30 of" in line]) == 2
    assert "seen_in_training" not in rk.evaluate(run / "model.safetensors", some)
    assert "seen_in_training" not in rk.evaluate(run)
    for fit in (lambda: calibrate(run, some), lambda: rk.evaluate(run, others, calibrate=some)):
        with pytest.raises(rk.ResnetkitError, match=f"30 of its images are training images of {run}; give others"):
            fit()


def test_equal_files_are_found_in_any_kind_of_set(photos, tmp_path):
    files = sorted(photos.rglob("*.png"))
    shutil.make_archive(tmp_path / "packed", "zip", photos)
    table = {"image": [{"bytes": f.read_bytes(), "path": None} for f in files]}
    table["label"] = [f.relative_to(photos).parts[0] for f in files]
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    (tmp_path / "list.txt").write_text("".join(f"{f} {f.relative_to(photos).parts[0]}\n" for f in files))
    read = ingest(open_dataset(photos), 0.0)
    lines = [f"{part},{digest}" for part, digest in zip(["train", "holdout", "test"] * 8, read.hashes["all"])]
    (tmp_path / "split.csv").write_text("\n".join(["split,hash", *lines]))
    trained = set(read.hashes["all"][::3])
    expected = sum(digest in trained for digest in read.hashes["all"])
    for data in (photos, tmp_path / "packed.zip", tmp_path / "table.parquet", tmp_path / "list.txt"):
        assert seen_in_training(tmp_path, given_images(data, None, small_model(), 0.0)) == expected


def test_figures_of_another_calibration_are_not_kept(tmp_path):
    """The model file says of loss and calibration error what holds for its temperature, or nothing."""
    write_digits(tmp_path / "set", digits().parts["train"].take(torch.arange(300)))
    model = small_model()
    model.classes = ["0", "1", "2"]
    model.metrics = {"top1": 0.5, "loss": 1.0, "ece": 0.1, "n": 10, "split": "test"}
    chosen = tmp_path / "three"
    chosen.mkdir()
    for name in model.classes:
        (tmp_path / "set" / name).rename(chosen / name)
    assert calibrate(model, chosen).metrics == {"top1": 0.5, "n": 10, "split": "test"}
    assert "Loss and calibration error" not in card(model, library="timm", use=[], notes=[])


def test_what_a_model_cannot_be_asked(digits_runs, monkeypatch):
    folder, model = digits_runs[0], load_model(digits_runs[0] / "model.safetensors")
    with pytest.raises(rk.ResnetkitError, match="a Model has its own"):
        rk.evaluate(model, folder, preprocessing="imagenet")
    with pytest.raises(rk.ResnetkitError, match="a Model has its own"):
        compare(model, model, folder, preprocessing="imagenet")
    with pytest.raises(rk.ResnetkitError, match="batch_size=0 is impossible"):
        rk.evaluate(model, folder, batch_size=0)
    monkeypatch.chdir(folder)
    with pytest.raises(rk.ResnetkitError, match="a Model has no images of its own"):
        rk.evaluate(model)


def test_what_to_calibrate_on_is_told(digits_runs):
    for fit in (lambda: calibrate(digits_runs[0], "digits"), lambda: rk.evaluate(digits_runs[0], calibrate="digits")):
        with pytest.raises(rk.ResnetkitError, match="no val part; it has .* not split; .*holdout") as refused:
            fit()
        assert "--split" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"workers": -1}, "workers=-1 is impossible; it must be a whole number, 0 or more"),
        ({"workers": "1"}, "workers='1' is impossible"),
        ({"batch_size": "8"}, "batch_size='8' is impossible; it must be a whole number, 1 or more"),
        ({"batch_size": True}, "batch_size=True is impossible"),
        ({"max_bad": 2}, "max_bad=2 is impossible; it must be a number, 0 to 1"),
        ({"max_bad": "10%"}, "max_bad='10%' is impossible"),
        ({"max_bad": float("nan")}, "max_bad=nan is impossible"),
        ({"tta": "yes"}, "tta='yes' is impossible; it must be True or False"),
    ],
)
def test_arguments_have_the_bounds_of_the_command(photos, wrong, told):
    with pytest.raises(rk.ResnetkitError, match=told):
        rk.evaluate(small_model(), photos, **wrong)


def test_a_network_is_no_model(photos):
    net = rk.build("resnet8_cifar", 2)
    for use in (
        lambda: rk.evaluate(net, photos),
        lambda: calibrate(net, photos),
        lambda: rk.compare(net, net, photos),
        lambda: rk.Predictor(net),
        lambda: rk.export(net, to="timm", out=photos / "out"),
        lambda: rk.load(net),
    ):
        with pytest.raises(rk.ResnetkitError, match=r"not ResNet; of a network make a Model: rk.Model\("):
            use()
    with pytest.raises(rk.ResnetkitError, match="a checkpoint or an id is wanted, not Model$"):
        rk.load(small_model())


def test_what_lies_on_the_hub_keeps_no_calibration(digits_runs, monkeypatch, tmp_path):
    """Said before any image is read."""
    monkeypatch.setattr("resnetkit.weights.load.fetch", lambda _: digits_runs[0])
    with pytest.raises(rk.ResnetkitError, match="hf:me/mine: what lies on the Hub cannot keep a calibration"):
        rk.evaluate("hf:me/mine", tmp_path / "gone", calibrate=tmp_path / "gone")


def write_digits(folder, part):
    for image, label, name in zip(part.images, part.labels.tolist(), part.names):
        path = folder / str(label) / f"{name.split('/')[1]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
