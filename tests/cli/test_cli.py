"""The command as a user types it."""

import errno
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import resnetkit as rk
from resnetkit.cli import main
from resnetkit.cli.output import describe_evaluation
from resnetkit.training.recipe import recipe_names
from resnetkit.weights.calibration import Calibration
from resnetkit.weights.catalogue import catalogue
from tests.weights.test_model_file import small_model

RESNET = [sys.executable, "-m", "resnetkit.cli.main"]


def resnet(*arguments, **options):
    return subprocess.run([*RESNET, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return rk.train("digits", out=folder, model="resnet8_cifar", epochs=2).folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_help_imports_nothing_slow():
    done = resnet("--help")
    assert done.returncode == 0 and "..." not in done.stdout.split("Commands:")[1], "a verb's first sentence is cut"
    for verb in ("train", "evaluate", "predict", "inspect", "models"):
        assert verb in done.stdout
    loaded = "import sys; sys.argv = ['resnet', '--help']; import resnetkit.cli.main as m\n"
    loaded += "try: m.main()\nexcept SystemExit: pass\n"
    loaded += "print([n for n in ('torch', 'numpy', 'PIL', 'matplotlib') if n in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_the_version_is_that_of_the_package():
    assert resnet("--version").stdout.strip() == rk.__version__


def test_the_help_of_train_names_every_recipe():
    said = " ".join(resnet("train", "--help").stdout.split())
    assert all(f"{name}," in said or f"{name} or" in said for name in recipe_names())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "digits", "--epoch", "3"], 2, "--epochs"),
        (["train", "digits", "--track", "tensorbord"], 2, "did you mean tensorboard?"),
        (["trian"], 2, "No such command 'trian'"),
        (["train", "digits", "--set", "label_smothing=0.1"], 2, "did you mean label_smoothing?"),
        (["train", "digits", "--model", "resnet21_cifar", "--out", "x"], 2, "nearest that do are 20 and 26"),
        (["train", "digits", "--set", "learning_rate=0.1"], 2, "did you mean lr?"),
        (["train", "nowhere"], 2, "no dataset 'nowhere'"),
        (["train"], 2, "nothing to train on"),
        (["train", "--resume", "nowhere"], 2, "not a run folder"),
        (["train", "digits", "--device", "cuda:7"], 2, "device 'cuda:7' is not to be had here"),
        (["inspect", "resnet5O"], 2, "did you mean resnet50"),
        (["inspect", "gone.safetensors"], 4, "no such model file"),
        (["inspect", "resnet18", "--preprocessing", "tf"], 2, "--preprocessing is for a checkpoint"),
        (["lab", "gradients", "--device", "foo"], 2, "device 'foo' is not to be had here"),
        (["tune", "--resume", "x", "--max-bad", "0.5"], 2, "give --resume alone"),
        (["train", "digits", "--preprocessing", "tf"], 2, "setting preprocessing does nothing without weights"),
        (["models", "resnot*"], 2, "no network matches"),
        (["models", "--weights", "resnot*"], 2, "no published weights match"),
        (["predict", "gone.safetensors", "x.png"], 2, "x.png: no such file"),
        (["evaluate", "gone", "--device", "foo"], 2, "device 'foo' is not to be had here"),
        (["evaluate", "gone", "--device", "meta"], 2, "device 'meta' is not one that we compute on; give cpu or cuda"),
        (["train", "digits", "--device", "mps"], 2, "device 'mps' is not one that we compute on"),
        (["train", "digits", "--seed", "9999999999"], 2, "seed=9999999999"),
        (["train", "digits", "--set", "min_scale=0.5"], 2, "min_scale=0.5 is for photos"),
        (["train", "digits", "--device", "cpu", "--compile", "graphs"], 2, "CUDA graphs, and the run is on cpu"),
        (["benchmark", "startup", "--compile", "on"], 2, "compile=on is for `resnet benchmark step`"),
        (["train", "--resume", "x", "--max-bad", "0.5"], 2, "a resumed run keeps its data and settings"),
        (["inspect", "timm/resnet50"], 2, "no network is called 'timm/resnet50'; did you mean"),
        (["inspect", "gone/net.pth"], 4, "no such model file or run folder, nor a checkpoint"),
        (["inspect", "resnet18", "--precision", "bfloat16"], 2, "--batch-size and --precision are for --memory"),
        (["train", "digits", "--lr", "0.1", "--set", "lr=0.2"], 2, "lr is given twice"),
        (["benchmark", "step", "resnet20_cifar", "--seconds", "0"], 2, "seconds=0: a sample takes more than none"),
        (["benchmark", "step", "resnet20_cifar", "--data", "x"], 2, "data=x is for `resnet benchmark loader`"),
        (["predict", "gone", "x.png", "--json", "--format", "csv"], 2, "--json prints JSON, not csv"),
        (["evaluate", "gone"], 4, "no such model file or run folder"),
        (["evaluate", "one", "two", "--corruptions"], 2, "--out, --calibrate and --corruptions are for one"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(tmp_path, arguments, code, says):
    done = resnet(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []  # nothing half-made


def test_a_run_that_is_called_as_a_network_is_the_run(tmp_path):
    resnet("train", "digits", "--model", "resnet8_cifar", "--epochs", 1, "--out", "resnet18", cwd=tmp_path)
    assert json.loads(resnet("inspect", "resnet18", "--json", cwd=tmp_path).stdout)["name"] == "resnet8_cifar"


@pytest.mark.parametrize("verb", ["evaluate", "inspect", "report", "train --resume", "train digits --out"])
def test_a_name_too_long_for_the_system_is_one_line(tmp_path, verb):
    done = resnet(*verb.split(), "x" * 300, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"resnet: {'x' * 300}") and done.stderr.endswith(": File name too long\n")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr(main, "app", full)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 5
    assert capsys.readouterr().err == "resnet: /tmp/x: No space left on device; free some space\n"


def test_train_prints_one_object(tmp_path):
    how = ("--precision", "float32", "--compile", "off", "--out", "run", "--json")
    done = resnet("train", "digits", "--model", "resnet8_cifar", "--epochs", 1, *how, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on cpu in float32" in done.stderr
    assert 'precision = "float32"' in (tmp_path / "run/recipe.toml").read_text()
    result = json.loads(done.stdout)
    assert (tmp_path / result["report"]).read_text().startswith("<!doctype html>")
    assert set(result) >= {"run", "model", "split", "top1", "top1_interval", "top5", "loss", "ece", "n"}
    low, high = result["top1_interval"]
    assert 0 <= low <= result["top1"] <= high <= 1
    assert (tmp_path / result["model"]).is_file()
    assert "epoch 1/1" in done.stderr and "images/s" in done.stderr and "data " in done.stderr


def test_train_for_people(tmp_path):
    tracked = ("--track", "tensorboard")
    done = resnet("train", "digits", "--model", "resnet8_cifar", "--epochs", 1, *tracked, cwd=tmp_path)
    assert re.search(r"top-1 \S+ \(95 % interval \S+ to \S+\), top-5 \S+ \(\S+ to \S+\), loss", done.stdout)
    assert re.search(r"calibration error \S+ \(\S+ to \S+\), 359 images", done.stdout)
    assert list((tmp_path / "runs/digits-resnet8_cifar-1/tensorboard").glob("events.out.tfevents.*"))
    assert "run folder: runs/digits-resnet8_cifar-1" in done.stdout
    assert "report: runs/digits-resnet8_cifar-1/report.html" in done.stdout
    assert (tmp_path / "runs/digits-resnet8_cifar-1/model.safetensors").is_file()


def test_inspect_prints_the_plan():
    done = resnet("inspect", "resnet50", "--json")
    facts = json.loads(done.stdout)
    assert {"name", "parameters", "macs", "activation_bytes", "receptive_field", "output_stride", "rows"} <= set(facts)
    assert (facts["parameters"], facts["receptive_field"], len(facts["rows"])) == (25_557_032, 427, 18)
    assert facts["rows"][4]["stride"] == 2 and facts["rows"][4]["shortcut"] == "projection"
    assert sum(row["parameters"] for row in facts["rows"]) == facts["parameters"]
    assert "stages.0.1 x2" in resnet("inspect", "resnet50").stdout


def test_inspect_a_run(model):
    facts = json.loads(resnet("inspect", model, "--json").stdout)
    assert facts["name"] == "resnet8_cifar"
    assert facts["classes"] == [str(i) for i in range(10)]
    assert facts["provenance"]["data"] == "digits" and facts["calibration"] == {}


def test_a_training_checkpoint_is_told_from_a_model(model):
    path = model / "checkpoints/last.safetensors"
    done = resnet("inspect", path)
    assert done.returncode == 4 and f"{path}: a training checkpoint; `resnet train --resume RUN`" in done.stderr


def test_images_before_the_model_are_told_so(model, images):
    done = resnet("predict", images / "0.png", model)
    assert done.returncode == 4 and "0.png: an image, and no checkpoint; in a command the model" in done.stderr


def test_inspect_tells_the_calibration(tmp_path):
    calibrated = small_model()
    calibrated.calibration = Calibration(temperature=1.5, n=40, data="val of photos")
    calibrated.save(tmp_path / "m.safetensors")
    told = resnet("inspect", str(tmp_path / "m.safetensors")).stdout
    assert "calibration:\n  temperature: 1.5\n  n: 40\n  data: val of photos" in told


def test_classes_are_for_a_name(model):
    done = resnet("inspect", str(model), "--num-classes", "7")
    assert done.returncode == 2 and "--num-classes is for a network's name" in done.stderr


def test_models_lists_the_family():
    assert [
        json.loads(line)["name"] for line in resnet("models", "resnext*", "--json").stdout.splitlines()
    ] == rk.variants("resnext*")


def test_models_lists_published_weights():
    found = [json.loads(line) for line in resnet("models", "--weights", "resnet20_*", "--json").stdout.splitlines()]
    assert [(entry["id"], entry["top1"]) for entry in found] == [("resnet20_cifar.akamaster_cifar10", 0.9173)]
    *_, last = resnet("models", "--weights", "resnet26*").stdout.splitlines()
    assert "resnet predict ID photo.jpg, resnet train photos --weights ID" in last


def test_all_that_is_known_of_published_weights_is_told_of_one():
    told, several = (resnet("models", "--weights", pattern).stdout for pattern in ("resnet20_*", "resnet26*"))
    (known,) = (entry for entry in catalogue() if entry.variant == "resnet20_cifar")
    assert f"\nsha256: {known.sha256}\n" in told and "\npreprocessing mean: [0.485, 0.456, 0.406]\n" in told
    assert f"\npublished: {known.published}\n" in told and "sha256" not in several and "None" not in told
    assert "\ntop1: 91.73%\n" in told and f"\nplace: {known.place}\n" in told
    on_the_hub = resnet("models", "--weights", "resnetv2_50.a1h_in1k").stdout
    assert on_the_hub.startswith("id: preact_resnet50.a1h_in1k\n") and "\nplace: hf:timm/resnetv2_50." in on_the_hub


def test_evaluate(model):
    result = json.loads(resnet("evaluate", model, "--json").stdout)
    assert result == json.loads((model / "evaluation/metrics.json").read_text())
    train_part = json.loads(resnet("evaluate", model, "--split", "train", "--json").stdout)
    assert train_part["n"] == 1438
    assert "no val part; it has train, test" in resnet("evaluate", model, "--split", "val").stderr
    assert "name the labelled images with --data" in resnet("evaluate", model / "model.safetensors").stderr


def test_evaluate_says_where_a_folder_of_images_goes(model, tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "one.png")
    image = tmp_path / "cats" / "one.png"
    for sources in ([tmp_path], [image], [image, image]):
        given = resnet("evaluate", model, *sources)
        assert given.returncode == 2 and "name their folder with --data" in given.stderr
    assert resnet("evaluate", model, model).returncode == 0


def test_evaluate_under_corruptions(model, images, tmp_path):
    for i, name in enumerate("012"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes((images / f"{i}.png").read_bytes())
    done = resnet("evaluate", model, "--data", tmp_path, "--corruptions", "--json")
    figures = json.loads(done.stdout)
    found = figures["corruptions"]
    assert len(found["kinds"]) == 15 and found["kinds"]["frost"][4]["severity"] == 5
    told = describe_evaluation(figures).splitlines()
    start = next(i for i, line in enumerate(told) if line.startswith("corrupted: mean top-1"))
    table = {
        line.split()[0]: [float(cell.rstrip("%")) / 100 for cell in line.split()[1:]] for line in told[start + 2 :]
    }
    assert told[start + 1].split() == ["severity", "1", "2", "3", "4", "5", "mean"]
    for kind, rows in found["kinds"].items():
        shares = [row["top1"] for row in rows]
        assert table[kind] == pytest.approx([*shares, sum(shares) / 5], abs=6e-4)
    worst = min(table, key=lambda kind: table[kind][-1])
    assert f"worst is {worst}, " in told[start]


def test_evaluate_measures_on_what_the_run_set_apart(tmp_path):
    """A folder that has grown would be split otherwise: training images must not slip into the test."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8) // (1 if name == "a" else 2)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    run = rk.train(tmp_path / "data", out=tmp_path / "run", model="resnet8_cifar", epochs=1)
    for i in range(10, 15):
        (tmp_path / "data" / "a" / f"{i}.png").write_bytes((tmp_path / "data" / "a" / "0.png").read_bytes())
    assert rk.evaluate(run.folder) == run.metrics
    assert rk.evaluate(run.folder, tmp_path / "data")["n"] == 25  # another set, taken whole
    row = next(line for line in (run.folder / "split.csv").read_text().splitlines() if ",test," in line)
    victim = tmp_path / "data" / row.split(",")[0]
    victim.write_bytes((tmp_path / "data" / "b" / "0.png").read_bytes() + b"x")
    with pytest.raises(rk.ResnetkitError, match="have changed since"):
        rk.evaluate(run.folder)
    victim.unlink()
    with pytest.raises(rk.ResnetkitError, match="1 of its test images are gone"):
        rk.evaluate(run.folder)


def test_a_grey_model_takes_colour_images(model, tmp_path):
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    result = json.loads(resnet("evaluate", model, "--data", tmp_path, "--json").stdout)
    assert (result["n"], result["split"]) == (6, "all")
    answers = [json.loads(line) for line in resnet("predict", model, tmp_path, "--json").stdout.splitlines()]
    right = sum(a["label"] == Path(a["path"]).parent.name for a in answers)
    assert result["top1"] == pytest.approx(right / 6)


def test_predict_answers_in_order(model, images):
    done = resnet("predict", model, images, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(a["path"]).name for a in answers] == ["0.png", "1.png", "2.png"]
    for answer in answers:
        assert set(answer) == {"path", "label", "probability", "top"}
        assert answer["top"][0] == [answer["label"], answer["probability"]]
        assert len(answer["top"]) == 5
    again = resnet("predict", model, images / "[12].png", images / "0.png", images / "1.png", "--json").stdout
    assert [Path(json.loads(line)["path"]).name for line in again.splitlines()] == ["1.png", "2.png", "0.png"]
    first = rk.Predictor(model)(images / "0.png")
    assert first["label"] == answers[0]["label"]
    assert first["probability"] == pytest.approx(answers[0]["probability"], abs=1e-6)


def test_predict_lists_as_many_classes_as_are_asked_for(model, images):
    in_lines = [resnet("predict", model, images / "0.png", *flags).stdout for flags in ((), ("--top", 7))]
    assert [line.count("%") for line in in_lines] == [3, 7]
    done = resnet("predict", model, images, "--top", 7, "--batch-size", 2, "--json")
    assert [len(json.loads(line)["top"]) for line in done.stdout.splitlines()] == [7, 7, 7]


def test_words_of_the_user_come_through(monkeypatch):
    """To the library, from verbs whose answers would be the same without."""
    seen = {}
    monkeypatch.setattr("resnetkit.inference.predictor.Predictor", lambda *_, **given: seen.update(given) or 1 / 0)
    monkeypatch.setattr("resnetkit.inference.predictor.find_images", list)
    monkeypatch.setattr("resnetkit.weights.load.load", lambda *_: small_model())
    exporting = importlib.import_module("resnetkit.export.export")  # rk.export is its function
    monkeypatch.setattr(exporting, "export", lambda source, **given: seen.update(given) or 1 / 0)
    for command in ("predict m x --workers 3", "export m --to timm --preprocessing tf"):
        assert isinstance(CliRunner().invoke(main.app, command.split()).exception, ZeroDivisionError)
    assert (seen["workers"], seen["preprocessing"]) == (3, "tf")


def test_predict_answers_the_others_when_one_is_bad(model, images, tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    done = resnet("predict", model, tmp_path, "--json")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 2
    assert "bad.jpg" in done.stderr and "1 of 3 images cannot be read" in done.stderr
    assert resnet("predict", model, tmp_path, "--json", "--max-bad", 0.5).returncode == 0


def test_too_many_bad_images_stop_training(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(b"no image")
    done = resnet("train", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 3
    assert "6 of 6 images cannot be read" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_broken_torchvision_on_the_path_is_no_matter(tmp_path, images):
    """The field's commonest install complaint: its compiled operators do not match the build of torch."""
    package = tmp_path / "path" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "path")}
    broken = subprocess.run(
        [sys.executable, "-c", "import torchvision"], env=environment, capture_output=True, text=True
    )
    assert "torchvision::nms does not exist" in broken.stderr
    options = {"cwd": tmp_path, "env": environment}
    done = resnet("train", "digits", "--model", "resnet8_cifar", "--epochs", 1, "--out", "run", "--json", **options)
    assert done.returncode == 0, done.stderr
    for arguments in (
        ["predict", "run", images, "--json"],
        ["evaluate", "run", "--json"],
        ["inspect", "run", "--json"],
    ):
        done = resnet(*arguments, **options)
        assert done.returncode == 0, done.stderr
