"""Each experiment from end to end, at the smallest size: a results file, a page, the command that repeats it."""

import json
import shlex
from dataclasses import replace

import pytest
import torch
import typer.testing

import resnetkit as rk
from resnetkit.cli.main import app
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import Interrupted, ResnetkitError
from resnetkit.lab import experiment as machinery
from resnetkit.lab.ablate import Ablate
from resnetkit.lab.degradation import Degradation
from resnetkit.lab.depth import Depth
from resnetkit.lab.experiment import conduct
from resnetkit.lab.gradients import Gradients
from resnetkit.lab.landscape import Landscape
from resnetkit.training.folder import RunFolder
from tests.reporting.page import Page

GREY = {"size": (8, 8), "framing": "squash", "channels": "grey", "mean": (0.5,), "std": (0.5,)}
TINY = {
    "gradients": Gradients(data="digits", depths=(8, 14), batch=8, steps=1, seeds=1),
    "depth": Depth(data="digits", depths=(8, 14, 20), batch=8, steps=3, seeds=1),
    "degradation": Degradation(data="digits", depths=(8, 14), images=64, epochs=1, batch=32, seeds=1),
    "landscape": Landscape(data="digits", depths=(8,), images=32, epochs=1, points=5, side=3, seeds=1),
    "ablate": Ablate(data="digits", images=32, depth=14, epochs=1, seeds=1),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    return {name: conduct(experiment, folder / name) for name, experiment in TINY.items()}


@pytest.mark.parametrize("name", TINY)
def test_the_page_holds_what_was_found(results, name):
    result, page = results[name], Page(results[name].page)
    assert page.all("svg") and page.tables
    assert "http" not in page.source.replace("http-equiv", "")
    for key in ("says", "method", "plots", "numbers", "source", "repeat"):
        assert key in page.ids
    for finding in result.record["findings"]:
        assert " ".join(finding["says"].split()) in page.text
        assert finding["verdict"] in ("holds", "does not hold", "does not show at this budget")
    assert result.record["command"] in page.text


@pytest.mark.parametrize("name", TINY)
def test_the_results_file_names_its_origin(results, name):
    record = json.loads((results[name].folder / "results.json").read_text())
    assert record["id"] == f"lab-{name}"
    assert record["environment"]["packages"]["torch"] and record["date"]
    assert record["seeds"] == list(range(TINY[name].seeds))
    assert len(record["cells"]) == len(TINY[name].cells())


@pytest.mark.parametrize("name", TINY)
def test_the_command_repeats_it(results, name, tmp_path, monkeypatch):
    """What the page says to type builds the same experiment."""
    asked = []
    monkeypatch.setattr(machinery, "conduct", lambda experiment, *_: asked.append(experiment) or results[name])
    words = shlex.split(TINY[name].command())
    done = typer.testing.CliRunner().invoke(app, [*words[1:], "--json"])
    assert done.exit_code == 0, done.output
    assert asked == [TINY[name]]
    assert json.loads(done.stdout)["command"] == TINY[name].command()


def test_quick_sizes_are_named_by_their_flag():
    assert Degradation(data="cifar10", **Degradation.QUICK).command() == "resnet lab degradation cifar10 --quick"
    assert Degradation(data="my images").command() == "resnet lab degradation 'my images'"


def test_a_rerun_goes_on_where_it_stopped(tmp_path, monkeypatch):
    experiment, measured = Depth(data="digits", depths=(8, 14), batch=8, steps=2, seeds=1), []
    measure = Depth.measure

    def twice(self, cell, folder):
        if len(measured) == 2:
            raise Interrupted("enough")
        measured.append(cell)
        return measure(self, cell, folder)

    monkeypatch.setattr(Depth, "measure", twice)
    with pytest.raises(Interrupted, match="give the same command with --out '.*/in parts' to go on"):
        conduct(experiment, tmp_path / "in parts")
    assert not (tmp_path / "in parts/results.json").exists()
    monkeypatch.setattr(
        Depth, "measure", lambda self, cell, folder: measured.append(cell) or measure(self, cell, folder)
    )
    for _ in range(2):  # the second time nothing is left to do
        with open(tmp_path / "in parts/cells.jsonl", "a") as file:
            file.write('{"cell": {"net": "pl')  # killed while it wrote
        whole = conduct(experiment, tmp_path / "in parts").record
        assert measured == experiment.cells()
    assert [row["net"] for row in whole["cells"]] == ["plain", "residual", "residual, zero-init"] * 2


def test_a_folder_of_another_experiment_is_left_alone(tmp_path, results):
    before = (results["depth"].folder / "lab.json").read_text()
    with pytest.raises(
        ResnetkitError, match="other settings, of other networks or of another version; choose another --out"
    ):
        conduct(Depth(data="digits", depths=(8,), steps=2), results["depth"].folder)
    assert (results["depth"].folder / "lab.json").read_text() == before
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ResnetkitError, match="is no experiment's"):
        conduct(TINY["depth"], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_mistakes_are_one_line():
    with pytest.raises(ResnetkitError, match="give one or more"):
        Gradients(seeds=0)
    with pytest.raises(ResnetkitError, match="give the residual MODEL"):
        Ablate(against="plain.safetensors")
    with pytest.raises(ResnetkitError, match="r.pth: name labelled images .* with --data"):
        Ablate(model="r.pth")
    for setting in ({"depth": 56}, {"epochs": 3}):
        with pytest.raises(ResnetkitError, match="for networks that are trained here; leave it out with a MODEL"):
            Ablate(model="r.pth", data="digits", **setting)
    with pytest.raises(ResnetkitError, match="an odd number from 5 on"):
        Landscape(points=8)
    with pytest.raises(ResnetkitError, match="steps=0: give one or more"):
        Depth(steps=0)
    with pytest.raises(ResnetkitError, match="steps=-3: give 0 or more"):
        Gradients(steps=-3)
    with pytest.raises(ResnetkitError, match="depths=8, 8: give one or more, and each once"):
        Depth(depths=(8, 8))
    with pytest.raises(
        ResnetkitError, match="20 layers are basic blocks and 1001 layers are bottleneck blocks; give dep"
    ):
        Depth(depths=(20, 1001))
    with pytest.raises(ResnetkitError, match="depth 21 does not fit"):
        Depth(depths=(20, 21))
    with pytest.raises(ResnetkitError, match="depths=20: give two or more, which are compared"):
        Degradation(depths=(20,))
    with pytest.raises(ResnetkitError, match="batch=0: give one or more"):
        Gradients(batch=0)


def test_what_json_has_no_number_for_is_null(tmp_path, results, monkeypatch):
    found = {
        key: value for key, value in results["depth"].record["cells"][0].items() if key not in ("net", "depth", "seed")
    }
    whole = Depth.read
    monkeypatch.setattr(Depth, "measure", lambda *_, **__: found | {"norm": float("nan")})
    monkeypatch.setattr(Depth, "read", lambda *given: replace(whole(*given), figures={"gradient": float("inf")}))
    result = conduct(TINY["depth"], tmp_path / "lab")
    text = (tmp_path / "lab" / "results.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert result.record["figures"] == {"gradient": None}
    assert all(cell["norm"] is None for cell in result.record["cells"])


def test_what_its_networks_train_in_is_settled_once(tmp_path, monkeypatch):
    """Timed anew for every cell, one might come out otherwise than the others."""
    answers = iter(["bfloat16"])
    monkeypatch.setattr(machinery, "resolve_precision", lambda *_: next(answers))
    experiment = Degradation(data="digits", depths=(8, 14), images=20, epochs=1, batch=20, seeds=1)
    record = conduct(experiment, tmp_path / "lab").record
    runs = [RunFolder(path) for path in (tmp_path / "lab/runs").iterdir()]
    assert record["precision"] == "bfloat16" and len(runs) == 4
    assert {run.recipe().precision for run in runs} == {"bfloat16"}
    assert conduct(experiment, tmp_path / "lab").record["precision"] == "bfloat16"


def test_a_model_that_has_changed_is_another(tmp_path):
    """A run trained again lies under the name that it had."""
    file = tmp_path / "m.safetensors"

    def save(seed):
        torch.manual_seed(seed)
        rk.Model(rk.build("resnet8_cifar", in_channels=1), list("0123456789"), Preprocessing(**GREY)).save(file)
        return Ablate(model=str(file), data="digits", images=16, seeds=1)

    first = conduct(save(0), tmp_path / "lab")
    assert first.record["models"]["residual"] and conduct(save(0), tmp_path / "lab").record["cells"]
    with pytest.raises(ResnetkitError, match="of other networks or of another version"):
        conduct(save(1), tmp_path / "lab")


def test_a_folder_from_before_a_setting_is_gone_on_with(tmp_path):
    """With the setting as it comes."""
    experiment, file = Depth(data="digits", depths=(8,), batch=8, steps=1, seeds=1), tmp_path / "lab/lab.json"
    first = conduct(experiment, tmp_path / "lab").record
    told = json.loads(file.read_text())
    told["settings"].pop("device")
    file.write_text(json.dumps(told))
    assert conduct(experiment, tmp_path / "lab").record["cells"] == first["cells"]
    with pytest.raises(ResnetkitError, match="other settings"):
        conduct(replace(experiment, device="cpu"), tmp_path / "lab")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_folder_that_does_not_say_what_was_asked(tmp_path, text):
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(ResnetkitError, match="choose another --out"):
        conduct(TINY["depth"], tmp_path)
    with pytest.raises(ResnetkitError, match="is no experiment's"):
        conduct(TINY["depth"], tmp_path / "lab.json")


def test_what_is_not_residual_is_refused(results, tmp_path):
    plain = next((results["ablate"].folder / "runs").glob("plain*"))
    with pytest.raises(ResnetkitError, match="give a residual network"):
        conduct(Ablate(model=str(plain), data="digits"), tmp_path / "a")
    reversible = rk.build("resnet20_cifar", reversible=True)
    rk.Model(reversible, list("0123456789"), Preprocessing(size=(8, 8), framing="squash")).save(
        tmp_path / "m.safetensors"
    )
    with pytest.raises(ResnetkitError, match="is reversible, so its blocks have other paths"):
        conduct(Ablate(model=str(tmp_path / "m.safetensors"), data="digits"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
