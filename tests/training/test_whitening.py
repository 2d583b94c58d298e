"""A whitened stem against scikit-learn's whitening, and a run that keeps it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA

import resnetkit as rk
from resnetkit.data.preprocess import Preprocessing
from resnetkit.training import trainer, whitening
from resnetkit.training.whitening import whiten
from resnetkit.weights.files import load_model
from tests.training.test_run import stop_at

TINY = {"model": "resnet8_cifar", "epochs": 1, "batch_size": 128, "whiten": True}


def test_filters_are_the_principal_components_over_their_deviations():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (200, 3, 10, 10), generator=generator)
    images = ((noise + noise.roll(1, 2) + noise.roll(1, 3)) // 3).to(torch.uint8)  # neighbours are alike
    mean = tuple((images.double().mean((0, 2, 3)) / 255).tolist())
    preprocessing = Preprocessing(size=(10, 10), framing="squash", mean=mean, std=(0.3, 0.3, 0.3))
    net = rk.build("resnet8_cifar", stem_width=60, shortcut="projection")
    before = net.stem.convs.conv1.weight.detach().clone()
    assert whiten(net, images, preprocessing) == "whiten 27 of 27 directions of a patch, in 60 filters"
    filters = net.stem.convs.conv1.weight.detach()
    assert torch.equal(filters[54:], before[54:]) and torch.equal(filters[0:54:2], -filters[1:54:2])
    x = preprocessing.normalise(images).double().numpy()
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    theirs = PCA(whiten=True).fit(patches)
    ours = patches @ filters[0:54:2].flatten(1).double().numpy().T
    # Of as many dimensions as they have variance 1 along, whatever rotates those of equal variance.
    assert np.allclose(np.cov(ours.T), np.eye(27), atol=0.03)
    for own, component in zip(filters[0:6:2].flatten(1).double().numpy(), theirs.components_):
        assert abs(own @ component) / np.linalg.norm(own) == pytest.approx(1, abs=0.02)


def test_a_frozen_whitened_stem_stays_through_a_run(tmp_path):
    run = rk.train("digits", out=tmp_path / "run", freeze="stem", **TINY)
    net = load_model(run.folder / "model.safetensors").network
    filters = net.stem.convs.conv1.weight
    assert len(filters) == 16  # of 3x3 patches of one channel: 9 directions and their negatives, the first 8
    assert torch.equal(filters[0::2], -filters[1::2])
    norm = net.stem.convs.norm1
    assert torch.equal(norm.running_mean, torch.zeros(16)) and torch.equal(norm.running_var, torch.ones(16))


def test_it_measures_the_pixels_that_the_network_sees():
    """At a fourth of the size what lay in the stored pixels' detail is gone."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, 3, 16, 16), generator=generator).to(torch.uint8)
    small = Preprocessing(size=(8, 8), framing="squash", mean=(0.5,) * 3, std=(0.3,) * 3)
    whole = Preprocessing(size=(16, 16), framing="squash", mean=(0.5,) * 3, std=(0.3,) * 3)
    found = {}
    for name, stored, preprocessing in (
        ("framed", small.frame(images), small),
        ("stored", images, small),
        ("whole", images, whole),
    ):
        net = rk.build("resnet8_cifar", stem_width=54, shortcut="projection")
        whiten(net, stored, preprocessing)
        found[name] = net.stem.convs.conv1.weight.detach()
    assert torch.equal(found["framed"], found["stored"])
    assert found["whole"].norm() < found["framed"].norm()


def test_it_measures_images_of_all_classes(monkeypatch):
    """Files lie class by class: of 14 images not the first 10 alone."""
    monkeypatch.setattr(whitening, "IMAGES", 10)
    dark, loud = torch.full((10, 3, 8, 8), 128).byte(), torch.randint(0, 256, (4, 3, 8, 8)).byte()
    preprocessing = Preprocessing(size=(8, 8), framing="squash", mean=(128 / 255,) * 3, std=(0.3,) * 3)
    net = rk.build("resnet8_cifar", stem_width=54, shortcut="projection")
    whiten(net, torch.cat([dark, loud]), preprocessing)
    assert net.stem.convs.conv1.weight.abs().max() < 5  # 45 for images without a pattern, by LEAST_VARIANCE


@pytest.mark.parametrize("recipe", ["cifar10-fast", "cifar10-strong"])
def test_the_recipes_that_whiten_stop_and_go_on_the_same(tmp_path, monkeypatch, recipe):
    settings = {"recipe": recipe, "epochs": 2, "batch_size": 200, "workers": 0, "precision": "float32"}
    settings["crop_padding"] = 1  # of 8 pixels
    whole = rk.train("digits", out=tmp_path / "whole", **settings)
    assert whole.metrics["top1"] > 0.5
    monkeypatch.setattr(trainer.Trainer, "_after_step", stop_at(3, trainer.Trainer._after_step))
    with pytest.raises(rk.ResnetkitError, match="--resume"):
        rk.train("digits", out=tmp_path / "parts", **settings)
    resumed = rk.train(resume=tmp_path / "parts")
    one, other = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_whitening_is_not_for(tmp_path):
    with pytest.raises(
        rk.ResnetkitError, match="setting whiten is for a stem of one 3x3 convolution; .* has stem='deep'"
    ):
        rk.train("digits", out=tmp_path / "deep", **TINY | {"model": "resnet18d"})
    with pytest.raises(rk.ResnetkitError, match="setting whiten is how a network without trained weights begins"):
        run = rk.train("digits", out=tmp_path / "run", **TINY | {"whiten": False})
        rk.train("digits", weights=str(run.folder), **TINY)
    with pytest.raises(rk.ResnetkitError, match="setting freeze needs trained weights to keep"):
        rk.train("digits", freeze="stages.0", **TINY)
