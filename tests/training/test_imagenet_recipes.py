"""The recipes for ImageNet, cut down to two steps of a small network on photos: they train, stop and go on the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import resnetkit as rk
from resnetkit.training import trainer
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.recipe import load_recipe, recipe_names
from resnetkit.training.run import FIRST_WEIGHTS
from resnetkit.weights.catalogue import by_id
from tests.training.test_run import stop_at

SMALL = {"model": "resnet8_cifar", "img_size": 40, "epochs": 2, "warmup_epochs": 0, "seed": 3, "precision": "float32"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve noisy pictures of two classes, larger than a small image may be."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("dark", "light"):
            (folder / part / name).mkdir(parents=True)
            for i in range(4 if part == "train" else 2):
                picture = pixels.integers(0, 128, (150, 170, 3)) + (128 if name == "light" else 0)
                Image.fromarray(picture.astype(np.uint8)).save(folder / part / name / f"{i}.jpg")
    return folder


def test_photos_without_weights_are_told_of_some(photos, tmp_path, capsys):
    source = rk.train(photos, out=tmp_path / "run", workers=0, **SMALL).folder
    told = capsys.readouterr().err
    assert f"start  random weights; trained ones, as --weights {FIRST_WEIGHTS}, need fewer photos" in told
    assert by_id(FIRST_WEIGHTS).variant == load_recipe("photos").model
    rk.train(photos, out=tmp_path / "tuned", workers=0, weights=source, img_size=40, epochs=1)
    assert "random weights" not in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [name for name in recipe_names() if name.startswith("imagenet")])
def test_two_steps_and_a_resume(recipe, photos, tmp_path, monkeypatch):
    settings = SMALL | ({"train_size": 32} if recipe in ("imagenet_v2", "imagenet_a3", "imagenet_fast") else {})
    whole = rk.train(photos, recipe=recipe, out=tmp_path / "whole", workers=0, **settings)
    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_at(1, trainer.Trainer._after_step))
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    with pytest.raises(rk.ResnetkitError, match="--resume"):
        rk.train(photos, recipe=recipe, out=tmp_path / "parts", workers=0, **settings)
    resumed = rk.train(resume=tmp_path / "parts")
    one, other = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    epochs = [line.split(",")[:2] for line in (whole.folder / "results.csv").read_text().splitlines()[1:]]
    assert [epoch for epoch, _ in epochs] == ["1", "2"]


@pytest.mark.parametrize("setting", [{"crop_padding": 4}, {"padding_mode": "reflect"}, {"whiten": True}])
def test_settings_of_small_images_are_refused_for_photos(photos, tmp_path, setting):
    with pytest.raises(rk.ResnetkitError, match=f"setting {next(iter(setting))}=.* is for images of one small size"):
        rk.train(photos, recipe="imagenet_a3", out=tmp_path / "run", workers=0, **SMALL | setting)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "ahead"), [("paper", False), ("v2", False), ("fast", False), (None, True)])
def test_sgd_is_that_of_the_recipes_source(name, ahead):
    """He et al. 2015, torchvision's references and FFCV take plain momentum."""
    recipe = load_recipe(f"imagenet_{name}" if name else "finetune", {"model": "resnet8_cifar"})
    assert make_optimizer(rk.build("resnet8_cifar"), recipe).param_groups[0]["nesterov"] is ahead
