"""Starting from trained weights: what is taken over, what stays frozen, what learns how fast."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import load_file

import resnetkit as rk
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused
from resnetkit.training import trainer
from resnetkit.training.epochs import training_batches
from resnetkit.training.freezing import frozen_parts, parts, set_training
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.prepare import prepare
from resnetkit.training.range_test import range_test
from resnetkit.training.recipe import load_recipe, make_recipe, to_toml
from resnetkit.training.run import new_state
from resnetkit.weights import load
from resnetkit.weights.files import Model, load_model
from tests.weights.test_foreign import in_their_names

TINY = {"model": "resnet8_cifar", "epochs": 2}
# ImageNet's procedure on images of 8 pixels: without what is for photos alone.
SMALL_A3 = TINY | {"min_scale": 1.0, "img_size": 8, "train_size": None, "crop_pct": 0.875, "repeats": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return rk.train("digits", out=tmp_path_factory.mktemp("runs") / "source", **TINY).folder


@pytest.fixture(scope="module")
def other_head(trained, tmp_path_factory):
    """The same network with a head for seven classes."""
    source = rk.load(trained)
    net = rk.build("resnet8_cifar", 7, in_channels=1)
    own = net.state_dict()
    net.load_state_dict({n: own[n] if n.startswith("head") else v for n, v in source.network.state_dict().items()})
    path = tmp_path_factory.mktemp("models") / "seven.safetensors"
    Model(net, [f"c{i}" for i in range(7)], source.preprocessing).save(path)
    return path


def finetune(out, weights, **settings):
    return rk.train("digits", out=out, weights=weights, **{"epochs": 2} | settings)


def test_a_recipe_that_comes_along_leaves_out_how_untrained_weights_begin(trained, tmp_path):
    for weights, begins in (({}, True), ({"weights": str(trained)}, False)):
        prepared = prepare("digits", recipe="imagenet_a3", settings=SMALL_A3 | weights, max_bad=0.0)
        assert prepared.recipe.zero_init_residual == begins
    with pytest.raises(rk.ResnetkitError, match="zero_init_residual is how a network without"):
        prepare(
            "digits", recipe=None, settings=TINY | {"weights": str(trained), "zero_init_residual": True}, max_bad=0.0
        )


def test_photos_at_the_size_of_small_weights_are_told(trained, tmp_path):
    pictures = Picture.new("L", (90, 80)), Picture.new("L", (80, 90), 200)
    for name, picture in zip(("dark", "light"), pictures):
        for i in range(4):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            picture.putpixel((i, 0), 255)
            picture.save(tmp_path / "photos" / name / f"{i}.png")
    for settings, told in (({}, True), ({"img_size": 16}, False)):
        given = {"weights": str(trained), "epochs": 1} | settings
        _, notes = new_state(prepare(tmp_path / "photos", None, given, 0.0), torch.device("cpu"))
        assert any("photos are seen at 8x8 pixels" in note for note in notes) == told


def test_pixels_of_a_foreign_checkpoint_are_as_the_user_says(trained, tmp_path):
    """In a run that begins again without a checkpoint, too. A recipe's are for the weights that it names."""
    net = rk.build("resnet8_cifar")
    torch.save(in_their_names(net), tmp_path / "theirs.th")
    told = {"weights": str(tmp_path / "theirs.th"), "preprocessing": "mean=0.1,0.2,0.3,std=0.5"}
    prepared = prepare("digits", None, TINY | told, 0.0)
    assert (prepared.preprocessing.mean, prepared.preprocessing.std) == ((0.1, 0.2, 0.3), (0.5,) * 3)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(prepared.recipe))
    assert prepare("digits", load_recipe(path), {}, 0.0).preprocessing == prepared.preprocessing
    assert prepare("digits", path, {}, 0.0).preprocessing == prepared.preprocessing
    assert prepare("digits", path, {"preprocessing": "tf"}, 0.0).preprocessing.mean == (0.5,) * 3
    other = prepare("digits", path, {"weights": str(trained)}, 0.0)
    assert other.recipe.preprocessing is None and other.preprocessing.channels == "grey"
    with pytest.raises(ModelFileRefused, match="its preprocessing is in the file"):
        prepare("digits", None, TINY | {"weights": str(trained), "preprocessing": "tf"}, 0.0)


def split_by(tensors, prefixes):
    inside = {n: v for n, v in tensors.items() if n.startswith(prefixes)}
    return inside, {n: v for n, v in tensors.items() if n not in inside}


@pytest.mark.parametrize(
    "freeze, kept",
    [("stem", ("stem",)), ("stages.1", ("stem", "stages.0", "stages.1")), ("backbone", ("stem", "stages"))],
)
def test_frozen_parts_stay_as_they_were_statistics_too(trained, tmp_path, freeze, kept):
    run = finetune(tmp_path / "run", trained, freeze=freeze)
    before, after = (load_file(f / "model.safetensors") for f in (trained, run.folder))
    same, changed = split_by(before, kept)
    assert any("running_mean" in name for name in same)
    for name, value in same.items():
        assert torch.equal(value, after[name]), name
    for name, value in changed.items():
        assert not torch.equal(value, after[name]), name


def test_the_statistics_drift_where_only_gradients_are_stopped(trained, tmp_path, monkeypatch):
    """The guard above can fail."""
    monkeypatch.setattr(torch.nn.Module, "train", lambda self, mode=True: _train_mode(self, True))
    run = finetune(tmp_path / "run", trained, freeze="backbone", epochs=1)
    before, after = (load_file(f / "model.safetensors") for f in (trained, run.folder))
    assert any(not torch.equal(v, after[n]) for n, v in before.items() if "running_mean" in n)


def test_norms_that_the_network_holds_frozen_do_not_learn(trained, tmp_path):
    source = rk.load(trained)
    net = rk.build("resnet8_cifar", 10, in_channels=1, norm="frozen", weights=trained)
    Model(net, source.classes, source.preprocessing).save(tmp_path / "frozen.safetensors")
    run = finetune(tmp_path / "run", tmp_path / "frozen.safetensors", freeze="stem", thaw_epochs=1, lr=0.01)
    after = run.model.network.state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, after[name]) == ("norm" in name), name


def test_the_range_test_leaves_frozen_parts_alone_too(trained):
    settings = TINY | {"weights": str(trained), "freeze": "backbone"}
    prepared = prepare("digits", None, settings | {"precision": "float32"}, max_bad=0.0)
    state, _ = new_state(prepared, torch.device("cpu"))
    before = {name: value.clone() for name, value in state.net.state_dict().items()}
    range_test(state, training_batches(prepared, workers=0), prepared)
    for name, value in state.net.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("head"), name


def _train_mode(module, mode):
    for each in module.modules():
        each.training = mode
    return module


def test_weights_are_read_once(trained, tmp_path, monkeypatch):
    """However many networks are tried."""
    read = []
    monkeypatch.setattr(load, "load_model", lambda path: read.append(path) or load_model(path))
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self)
    begun = finetune(tmp_path / "run", trained, epochs=50, lr="auto", batch_size="auto", compile="auto")
    assert len(read) == 1
    before = rk.load(trained).network.state_dict()
    for name, value in begun.state.net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_was_tried_is_kept_and_no_other_note(trained, tmp_path, capsys):
    run = finetune(tmp_path / "run", trained, epochs=1, precision="float32", batch_size="auto", memory="auto")
    batch, memory = json.loads((run.folder / "command.json").read_text())["trials"]
    assert re.match(r"batch  \d+ images a step, ", batch) and memory.startswith("memory ")
    told = capsys.readouterr().err.splitlines()
    assert batch in told and memory in told and any(line.startswith("start  ") for line in told)


def test_a_head_of_another_size_is_replaced_and_said_so(other_head, tmp_path, capsys):
    run = finetune(tmp_path / "run", other_head, freeze="backbone")
    assert "a new head for 10 classes in place of 7" in capsys.readouterr().err
    before, after = load_file(other_head), load_file(run.folder / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith("head"), name


def test_the_network_and_preprocessing_are_the_weights(trained, tmp_path):
    source, run = rk.load(trained), finetune(tmp_path / "run", trained)
    assert run.model.network.spec == source.network.spec
    assert run.model.preprocessing == source.preprocessing


def test_weights_of_another_network_are_refused_by_name(trained, tmp_path):
    with pytest.raises(ModelFileRefused, match=r"not those of resnet14_cifar.*--model"):
        finetune(tmp_path / "run", trained, model="resnet14_cifar")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"reversible": True}, "of a network with reversible=False, and here it is True"),
        ({"model": "plain14_cifar"}, "of a network with shortcut='zero_pad', and here it is 'none'"),
    ],
)
def test_weights_of_another_function_are_refused(tmp_path, asked, says):
    """All tensors have the same shapes."""
    net = rk.build("resnet14_cifar", 10, in_channels=1)
    preprocessing = Preprocessing(size=(8, 8), framing="squash", channels="grey", mean=(0.3,), std=(0.4,))
    Model(net, [str(digit) for digit in range(10)], preprocessing).save(tmp_path / "own.safetensors")
    with pytest.raises(ModelFileRefused, match=says):
        finetune(tmp_path / "run", tmp_path / "own.safetensors", **asked)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_frozen_is_refused(trained, tmp_path):
    with pytest.raises(rk.ResnetkitError, match="freeze='layer3': resnet8_cifar has stem, stages.0, .* and backbone"):
        finetune(tmp_path / "run", trained, freeze="layer3")
    with pytest.raises(rk.ResnetkitError, match="needs trained weights"):
        rk.train("digits", out=tmp_path / "run", freeze="stem", **TINY)


@pytest.mark.parametrize(
    "how", [{"rate_decay": 0.5, "optimizer": "adamw", "lr": 1e-3}, {"rate_decay": 1, "optimizer": "sgd"}]
)
def test_an_interrupted_fine_tuning_goes_on_exactly(trained, tmp_path, monkeypatch, how):
    settings = {"freeze": "stages.1", "thaw_epochs": 1, "epochs": 3} | how
    whole = finetune(tmp_path / "whole", trained, **settings)
    weights = shutil.copytree(trained, tmp_path / "weights")
    after_step, steps = trainer.Trainer._after_step, {14}

    def stop_there(self, state, waited):
        self.stop.requested = self.stop.requested or state.step in steps and not steps.clear()
        after_step(self, state, waited)

    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_there)
    with pytest.raises(rk.ResnetkitError):
        finetune(tmp_path / "parts", weights, **settings)
    shutil.rmtree(weights)  # the checkpoint has what became of them
    resumed = rk.train(resume=tmp_path / "parts")
    one, other = (load_file(r.folder / "model.safetensors") for r in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_has_not_saved_needs_its_weights(trained, tmp_path, monkeypatch):
    weights = shutil.copytree(trained, tmp_path / "weights")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "run", lambda self: self)
        finetune(tmp_path / "run", weights)
    shutil.rmtree(weights)
    with pytest.raises(ModelFileRefused, match="weights: no such model file"):
        rk.train(resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("resnet20_cifar", ["stem", "stages.0", "stages.1", "stages.2"]),
        ("preact_resnet20_cifar", ["stem", "stages.0", "stages.1", "stages.2", "norm"]),
    ],
)
def test_parts_thaw_from_the_head_down(name, backbone):
    net = rk.build(name)
    recipe = make_recipe({"model": name, "epochs": 9, "lr": 0.1, "freeze": "backbone", "thaw_epochs": 2})
    for epoch in range(12):
        set_training(net, frozen_parts(net, recipe, epoch))
        still = tuple(f"{part}." for part in backbone[: max(0, len(backbone) - epoch // 2)])
        for parameter, weight in net.named_parameters():
            assert weight.requires_grad != parameter.startswith(still), (epoch, parameter)
        assert net.stages[0].training == ("stages.0." not in still)


def test_rates_fall_towards_the_input():
    net = rk.build("resnet20_cifar")
    recipe = make_recipe({"model": "resnet20_cifar", "epochs": 1, "lr": 0.1, "rate_decay": 0.5})
    scales = {id(p): group["scale"] for group in make_optimizer(net, recipe).param_groups for p in group["params"]}
    assert len(scales) == len(list(net.parameters()))
    by_part = [{scales[id(p)] for p in part.parameters()} for _, part in reversed(parts(net))]
    assert by_part == [{1.0}, {0.5}, {0.25}, {0.125}, {0.0625}]


def test_weights_that_a_recipe_file_names_bring_their_preprocessing(trained, tmp_path):
    run = finetune(tmp_path / "run", trained, epochs=1, holdout=0.3)
    again = rk.train("digits", out=tmp_path / "again", recipe=str(run.folder / "recipe.toml"), holdout=0.5)
    assert again.model.preprocessing == rk.load(trained).preprocessing
