"""Answers in every form, for every image, once; what a calibrated model says besides; images sorted by class."""

import csv
import json
import shutil
import subprocess
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.data.preprocess import BadImage, Preprocessing
from resnetkit.errors import Diverged, ResourceExhausted
from resnetkit.evaluation.calibration import fit_calibration
from resnetkit.inference.predictor import Predictor, find_images
from resnetkit.inference.results import answer_to_file, find_format, line
from resnetkit.inference.sorting import Sorter
from resnetkit.tasks.classification import describe
from resnetkit.weights.calibration import Calibration
from tests.weights.test_model_file import small_model


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seventy images, so that they come in three batches, one of them no image."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(70):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (folder / "17.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


@pytest.fixture
def calibrated():
    model = small_model()
    torch.manual_seed(0)
    logits = 3 * torch.randn(300, 3)
    model.calibration = fit_calibration(logits, (logits / 2).softmax(1).multinomial(1)[:, 0], "made up")
    return model


def test_temperature_makes_answers_less_sure_and_no_other(images):
    model = small_model()
    raw = [a for a in Predictor(model).predict(images) if "error" not in a]
    model.calibration = Calibration(temperature=4.0, n=1)
    warm = [a for a in Predictor(model).predict(images) if "error" not in a]
    assert [a["label"] for a in raw] == [a["label"] for a in warm]
    assert all(w["probability"] < r["probability"] for r, w in zip(raw, warm))
    logits = torch.tensor([p for _, p in raw[0]["top"]]).log() / 4
    assert [p for _, p in warm[0]["top"]] == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)


def test_answers_that_are_no_numbers_are_not_given(images):
    model = small_model()
    model.network.head.classifier.bias.data[0] = torch.nan
    predictor = Predictor(model)
    with pytest.raises(Diverged, match="the network's answers are not finite"):
        predictor(images[0])
    with pytest.raises(Diverged, match="the network's answers are not finite"):
        list(predictor.predict(images))


def test_one_path_is_one_image(images):
    predictor = Predictor(small_model())
    for path in (images[0], str(images[0])):
        assert list(predictor.predict(path)) == list(predictor.predict([path]))


def test_one_image_is_not_many(images):
    """Neither the rows of an array nor the bytes of a file are images."""
    predictor, picture = Predictor(small_model()), Image.open(images[0]).convert("RGB")
    expected = predictor(images[0]) | {"path": None}
    for image in (picture, np.asarray(picture), images[0].read_bytes()):
        (answer,) = predictor.predict(image)
        assert answer == expected
    assert len(list(predictor.predict(np.asarray(picture)[None]))) == 1


@pytest.mark.parametrize("batch_size", [7, 32])
def test_images_are_read_ahead_by_threads_and_no_further(images, batch_size):
    """The answers are those to the images one at a time."""
    predictor = Predictor(small_model(), batch_size=batch_size)
    asked = []
    answers = predictor.predict(path for path in images * 3 if asked.append(path) is None)
    first = next(answers)
    assert len(asked) == 2 * batch_size
    rest = list(answers)
    assert asked == images * 3 and len(rest) == len(asked) - 1
    for path, answer in zip(images, [first, *rest]):
        if path.name != "17.png":
            assert answer["path"] == str(path)
            assert answer["probability"] == pytest.approx(predictor(path)["probability"], abs=1e-5)


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_as_many_threads_read_as_are_asked_for(images, monkeypatch, workers):
    """More than a machine would take by itself, which wait for one another."""
    whole, readers, all_there = Preprocessing.decode, set(), threading.Barrier(max(1, workers))

    def decode(self, source):
        if threading.get_ident() not in readers:
            readers.add(threading.get_ident())
            all_there.wait(60)
        return whole(self, source)

    model = small_model()
    expected = list(Predictor(model).predict(images))
    monkeypatch.setattr(Preprocessing, "decode", decode)
    assert list(Predictor(model, workers=workers).predict(images)) == expected
    assert len(readers) == max(1, workers) and (threading.get_ident() in readers) == (workers == 0)


def test_the_predictor_computes_with_folded_norms_what_the_network_says(images):
    model = small_model()
    predictor = Predictor(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in predictor._network.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.network.modules())
    preprocessing = model.preprocessing
    pixels = preprocessing.normalise(preprocessing.frame(preprocessing.decode(images[0]))[None])
    with torch.no_grad():
        expected = model.network.eval()(pixels).softmax(1).amax().item()
    assert predictor(images[0])["probability"] == pytest.approx(expected, rel=1e-5)


def test_one_argument_is_as_on_the_command_line(images):
    """A file, a folder or a pattern; what a list holds is taken as it is, and need be no path."""
    predictor = Predictor(small_model())
    folder = images[0].parent
    for named in (folder, str(folder), str(folder / "*.png")):
        assert [answer["path"] for answer in predictor.predict(named)] == [str(path) for path in images]
    assert [answer["path"] for answer in predictor.predict(str(images[3]))] == [str(images[3])]
    with pytest.raises(rk.ResnetkitError, match="gone.png: no such file"):
        list(predictor.predict(folder / "gone.png"))
    listed = [folder, folder / "gone.png", np.zeros((8, 8), np.uint8), images[3].read_bytes(), None]
    answers = list(predictor.predict(listed))
    assert [answer["path"] for answer in answers] == [str(folder), str(folder / "gone.png"), None, None, None]
    assert answers[0]["error"] == "a folder" and answers[1]["error"] == "no such file"
    assert answers[3]["label"] == predictor(images[3])["label"] and "not NoneType" in answers[4]["error"]


def test_what_is_no_image_is_named(images, tmp_path):
    predictor = Predictor(small_model())
    for wrong, name in (([], "list"), (torch.zeros(1, 8, 8), "Tensor"), (None, "NoneType")):
        with pytest.raises(BadImage, match=rf"PIL image or \(H, W\[, C\]\) array, not {name}; for several: predict"):
            predictor(wrong)
    with pytest.raises(BadImage, match=rf"^{tmp_path}: a folder$"):
        predictor(tmp_path)
    with pytest.raises(BadImage, match="^nope.jpg: no such file$"):
        predictor("nope.jpg")
    with pytest.raises(BadImage, match="^not an image of a known format$"):
        predictor(b"no image")


def test_a_full_gpu_is_one_line(images, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    predictor = Predictor(small_model(), device="cpu")
    monkeypatch.setattr(ResNet, "forward", full)
    with pytest.raises(ResourceExhausted, match="cpu has too little memory"):
        predictor(images[0])
    monkeypatch.setattr(ResNet, "place", full)
    with pytest.raises(ResourceExhausted, match="cpu has too little memory"):
        Predictor(small_model(), device="cpu")


def test_none_of_these_and_sets():
    probabilities, classes = torch.tensor([0.2, 0.5, 0.3]), ["a", "b", "c"]
    assert describe(probabilities, classes, answer_threshold=0.5)["label"] == "b"
    answer = describe(probabilities, classes, answer_threshold=0.6, set_threshold=0.25)
    assert answer["label"] is None and answer["probability"] == pytest.approx(0.5)
    assert answer["set"] == ["b", "c"] and len(answer["top"]) == 3
    assert describe(probabilities, classes, set_threshold=0.9)["set"] == []
    assert set(describe(probabilities, classes)) == {"label", "probability", "top"}
    assert line({"path": "x.png"} | describe(probabilities, classes, answer_threshold=0.6), "table") == (
        "x.png: none of these (b 50.0%, c 30.0%, a 20.0%)"
    )


def test_a_calibrated_model_answers_what_it_is_asked(calibrated, images):
    percent = max(calibrated.calibration.answer_thresholds)
    strict = Predictor(calibrated, certainty=percent / 100, coverage=0.9)
    for answer in strict.predict(images[:10]):
        sure = answer["probability"] >= calibrated.calibration.answer_thresholds[percent]
        assert (answer["label"] is not None) == sure
        likely = [name for name, p in answer["top"] if p >= calibrated.calibration.set_thresholds[90]]
        assert answer["set"] == likely
    with pytest.raises(rk.ResnetkitError, match="certainty 0.999 is not among the levels"):
        Predictor(calibrated, certainty=0.999)
    with pytest.raises(rk.ResnetkitError, match="coverage needs a calibrated model"):
        Predictor(small_model(), coverage=0.9)


def test_every_format_has_every_image_in_order(calibrated, images, tmp_path):
    found = {}
    for name in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"answers.{name}"
        answers = list(answer_to_file(Predictor(calibrated, coverage=0.9), images, out, find_format(None, out)))
        found[name] = out
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["answers.csv", "answers.jsonl", "answers.parquet"]
    assert [json.loads(text) for text in found["jsonl"].read_text().splitlines()] == answers
    rows = list(csv.DictReader(found["csv"].open()))
    table = pq.read_table(found["parquet"]).to_pylist()
    for path, answer, row, record in zip(images, answers, rows, table, strict=True):
        assert answer["path"] == row["path"] == record["path"] == str(path)
        if path.name == "17.png":
            assert answer["error"] == row["error"] == record["error"] and row["label"] == ""
        else:
            assert answer["label"] == row["label"] == record["label"]
            assert answer["probability"] == float(row["probability"]) == record["probability"]
            assert answer["set"] == json.loads(row["set"]) == record["set"]
            assert answer["top"] == [[each["label"], each["probability"]] for each in record["top"]]
            assert answer["top"] == json.loads(row["top"])


def test_interrupted_and_called_again_every_image_is_asked_once(calibrated, images, tmp_path, monkeypatch):
    asked = []
    record = type(calibrated.preprocessing)
    whole = record.decode
    monkeypatch.setattr(record, "decode", lambda self, source: (asked.append(source), whole(self, source))[1])
    out = tmp_path / "answers.jsonl"
    begun = answer_to_file(Predictor(calibrated), images, out, "jsonl")
    for _ in range(40):  # into the second batch
        next(begun)
    begun.close()
    before = len(asked)  # those answered, and of the others as many as were read ahead
    assert not out.exists()
    journal = tmp_path / ".answers.jsonl.answers"
    with journal.open("a") as file:
        file.write('{"path": "torn')
    answers = list(answer_to_file(Predictor(calibrated), images, out, "jsonl"))
    assert [answer["path"] for answer in answers] == [str(path) for path in images]
    assert [json.loads(text) for text in out.read_text().splitlines()] == answers
    expected = list(Predictor(calibrated).predict(images))
    for got, want in zip(answers, expected, strict=True):
        assert got["path"] == want["path"] and got.get("label") == want.get("label")
    assert not journal.exists()
    assert 40 <= before <= len(images)
    assert sorted(asked[before : -len(images)]) == [images[17], *images[40:]]  # the unreadable one once more
    with pytest.raises(rk.ResnetkitError, match="is there already"):
        next(answer_to_file(Predictor(calibrated), images, out, "jsonl"))


def test_gone_on_with_what_is_another_file_now_or_was_not_readable_is_asked_again(calibrated, tmp_path, monkeypatch):
    names = ["a.png", "b.png", "bad.png", "last.png"]

    def write(folder, seed):
        folder.mkdir()
        for i, name in enumerate(names):
            pixels = np.random.default_rng(seed + i).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)

    def begin(out):
        begun = answer_to_file(Predictor(calibrated), [Path(name) for name in names], out, "jsonl")
        for _ in names[:-1]:
            next(begun)
        begun.close()

    write(tmp_path / "one", 0)
    write(tmp_path / "two", 100)
    whole = (tmp_path / "one" / "bad.png").read_bytes()
    (tmp_path / "one" / "bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path / "one")
    for out in (tmp_path / "here.jsonl", tmp_path / "there.jsonl"):
        begin(out)
    (tmp_path / "one" / "bad.png").write_bytes(whole)
    Image.open("last.png").save("b.png")
    for folder, out in (("one", tmp_path / "here.jsonl"), ("two", tmp_path / "there.jsonl")):
        monkeypatch.chdir(tmp_path / folder)
        answers = list(answer_to_file(Predictor(calibrated), [Path(name) for name in names], out, "jsonl"))
        for name, answer in zip(names, answers, strict=True):
            assert answer["path"] == name
            assert answer["probability"] == pytest.approx(Predictor(calibrated)(name)["probability"], rel=1e-6)


def test_a_file_that_changes_while_others_are_answered_is_asked_again(calibrated, images, tmp_path):
    """It was read ahead, so its answer is of what it was."""
    paths = [Path(shutil.copy(path, tmp_path)) for path in images[:5]]
    out = tmp_path / "answers.jsonl"
    begun = answer_to_file(Predictor(calibrated), paths, out, "jsonl")
    next(begun)
    shutil.copy(images[9], paths[3])
    for _ in range(3):
        next(begun)
    begun.close()
    answer = list(answer_to_file(Predictor(calibrated), paths, out, "jsonl"))[3]
    assert answer["probability"] == pytest.approx(Predictor(calibrated)(images[9])["probability"], rel=1e-6)


def test_answers_of_two_models_are_not_mixed(calibrated, images, tmp_path):
    out = tmp_path / "answers.jsonl"
    begun = answer_to_file(Predictor(calibrated), images, out, "jsonl")
    next(begun)
    begun.close()
    for other in (Predictor(small_model()), Predictor(calibrated, coverage=0.8)):
        with pytest.raises(
            rk.ResnetkitError, match="begun with another model, preprocessing, precision, top or thresholds"
        ):
            next(answer_to_file(other, images, out, "jsonl"))
    for other in (b"something else\n", b"\xff\xfe\n", b"{}\n{}\n"):
        (tmp_path / ".answers.jsonl.answers").write_bytes(other)
        with pytest.raises(rk.ResnetkitError, match="not a file of answers"):
            next(answer_to_file(Predictor(calibrated), images, out, "jsonl"))


def test_answers_begun_otherwise_are_not_gone_on_with(images, tmp_path):
    """The weights are the same; what else an answer depends on is not."""
    out, model = tmp_path / "answers.jsonl", small_model()
    begun = answer_to_file(Predictor(model), images, out, "jsonl")
    next(begun)
    begun.close()
    network = deepcopy(model.network)
    network.spec = replace(network.spec, activation="silu")
    others = [
        Predictor(replace(model, classes=model.classes[::-1])),
        Predictor(replace(model, preprocessing=replace(model.preprocessing, mean=(0.5,)))),
        Predictor(replace(model, calibration=Calibration(temperature=2.0, n=1))),
        Predictor(replace(model, network=network)),
        Predictor(model, precision="bfloat16"),
    ]
    for other in others:
        with pytest.raises(rk.ResnetkitError, match="begun with another model"):
            next(answer_to_file(other, images, out, "jsonl"))
    assert len(list(answer_to_file(Predictor(model), images, out, "jsonl"))) == len(images)


@pytest.mark.slow
def test_killed_and_run_again(calibrated, images, tmp_path):
    calibrated.save(tmp_path / "m.safetensors")
    command = [sys.executable, "-m", "resnetkit.cli.main", "predict", "m.safetensors", *map(str, images)]
    command += ["--out", "a.csv", "--max-bad", "1"]
    journal = tmp_path / ".a.csv.answers"
    slow = "import sys, time, resnetkit.tasks.classification as c, resnetkit.cli.main as m\n"
    slow += "d = c.describe\n"
    slow += "c.describe = lambda *a, **k: (time.sleep(0.05), d(*a, **k))[1]\n"
    slow += "m.main()"
    begun = subprocess.Popen([sys.executable, "-c", slow, *command[3:]], cwd=tmp_path)
    while not journal.exists() or len(journal.read_text().splitlines()) < 20:
        time.sleep(0.02)
        assert begun.poll() is None
    begun.kill()
    begun.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "69 of 70 images answered: a.csv" in done.stdout
    paths = [row["path"] for row in csv.DictReader((tmp_path / "a.csv").open())]
    assert paths == [str(path) for path in images]


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [(None, None, "table"), (None, "a.csv", "csv"), (None, "a.parquet", "parquet"), ("jsonl", "a.txt", "jsonl")],
)
def test_format(name, out, expected):
    assert find_format(name, Path(out) if out else None) == expected


def test_patterns_take_folders_as_a_shell_would(tmp_path):
    for name in ("a/1.png", "a/2.txt", "b.png", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([str(tmp_path / "*")]) == [tmp_path / "a/1.png", tmp_path / "b.png"]


def test_questions_that_have_no_answer(calibrated):
    with pytest.raises(rk.ResnetkitError, match="top='3' is impossible"):
        Predictor(small_model(), top="3")
    with pytest.raises(rk.ResnetkitError, match="workers=-1 is impossible"):
        Predictor(small_model(), workers=-1)
    with pytest.raises(rk.ResnetkitError, match="top=0 is impossible"):
        Predictor(calibrated, top=0)
    for level in (float("nan"), float("inf"), 0, 1):
        with pytest.raises(rk.ResnetkitError, match="coverage .* is impossible; it must be a share"):
            Predictor(calibrated, coverage=level)


@pytest.mark.parametrize(
    ("name", "out", "says"),
    [
        ("xml", None, "format 'xml' is not known"),
        (None, "a.txt", "which format"),
        ("parquet", None, "cannot be printed"),
    ],
)
def test_format_refused(name, out, says):
    with pytest.raises(rk.ResnetkitError, match=says):
        find_format(name, Path(out) if out else None)


def test_sorting_copies_everything_and_overwrites_nothing(tmp_path):
    sources = [tmp_path / name for name in ("a/x.png", "b/x.png", "c/x.png", "d/x.png")]
    for path, text in zip(sources, ("one", "two", "one", "none")):
        path.parent.mkdir()
        path.write_text(text)
    into = tmp_path / "sorted"
    (into / "cat").mkdir(parents=True)
    (into / "cat" / "x.png").write_text("was here before")

    def sort():
        sorter = Sorter(into, sources)
        return [sorter.copy(path, label) for path, label in zip(sources, ("cat", "cat", "cat", None))]

    expected = {"cat/x.png": "was here before", "cat/x-2.png": "one", "cat/x-3.png": "two", "cat/x-4.png": "one"}
    expected |= {"none of these/x.png": "none"}
    for _ in range(2):  # the second time nothing is left to copy
        assert [str(p.relative_to(into)) for p in sort()] == list(expected)[1:]
        assert {str(p.relative_to(into)): p.read_text() for p in into.rglob("*.png")} == expected
    assert all(path.exists() for path in sources)


def test_sorting_after_an_interruption(tmp_path):
    """Half the copies there, the other half not: the result is the same as of one call."""
    sources = [tmp_path / str(i) / "x.png" for i in range(4)]
    for path in sources:
        path.parent.mkdir()
        path.write_text("all alike")
    into = tmp_path / "sorted"
    first = Sorter(into, sources)
    begun = [first.copy(path, "cat") for path in sources[:2]]
    again = Sorter(into, sources)
    assert [again.copy(path, "cat") for path in sources][:2] == begun
    assert len(list(into.rglob("*.png"))) == 4


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "ü" * 125 + "n.png"])
def test_a_photo_of_the_longest_name_is_sorted(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert Sorter(tmp_path / "sorted", ()).copy(tmp_path / name, "cat").read_text() == "x"


def test_a_class_name_is_one_folder(tmp_path):
    (tmp_path / "x.png").write_text("x")
    sorter = Sorter(tmp_path / "sorted", ())
    for label, folder in (("../../etc", "_.._.._etc"), ("a/b", "a_b"), (".hidden", "_.hidden")):
        assert sorter.copy(tmp_path / "x.png", label) == tmp_path / "sorted" / folder / "x.png"


def test_sorting_into_the_images_themselves_is_refused(tmp_path):
    (tmp_path / "sorted").mkdir()
    for source in (tmp_path, tmp_path / "*"):
        with pytest.raises(rk.ResnetkitError, match="whose images are to be sorted"):
            Sorter(tmp_path / "sorted", [source])
