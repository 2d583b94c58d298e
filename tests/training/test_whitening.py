"""A whitened stem against scikit-learn's whitening, and a run that keeps it."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import resnetkit as rk
from resnetkit.data.preprocess import Preprocessing
from resnetkit.training.whitening import whiten
from resnetkit.weights.files import load_model

TINY = {"model": "resnet8_cifar", "epochs": 1, "batch_size": 128, "whiten": True}


def test_filters_are_the_principal_components_over_their_deviations():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (200, 3, 10, 10), generator=generator)
    images = ((noise + noise.roll(1, 2) + noise.roll(1, 3)) // 3).to(torch.uint8)  # neighbours are alike
    mean = tuple((images.double().mean((0, 2, 3)) / 255).tolist())
    preprocessing = Preprocessing(size=(10, 10), framing="squash", mean=mean, std=(0.3, 0.3, 0.3))
    net = rk.build("resnet8_cifar", stem_width=60, shortcut="projection")
    before = net.stem.convs.conv1.weight.detach().clone()
    whiten(net, images, preprocessing)
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


def test_what_whitening_is_not_for(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="setting whiten is how a network without trained weights begins"):
        run = rk.train("digits", out=tmp_path / "run", **TINY | {"whiten": False})
        rk.train("digits", weights=str(run.folder), **TINY)
    with pytest.raises(rk.ResnetkitError, match="setting freeze needs trained weights to keep"):
        rk.train("digits", freeze="stages.0", **TINY)
