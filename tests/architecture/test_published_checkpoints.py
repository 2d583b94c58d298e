"""Other people's trained networks give their published accuracy: only data catches a shortcut padded at the wrong
end, or padding on the wrong side."""

from dataclasses import replace

import pytest
import torch

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.data.datasets import open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.data.loaders import evaluation_batches
from resnetkit.data.preprocess import Preprocessing
from resnetkit.evaluation.evaluate import answer
from resnetkit.weights.from_keras import read_keras
from tests.parity.pairing import layers_as_they_run

AKAMASTER = Preprocessing(size=(32, 32), framing="squash")  # ImageNet's statistics, as its training code has them


@pytest.fixture(scope="module")
def images(shared):
    dataset = open_dataset(shared / "data/cifar10")
    dataset.parts = {"test": dataset.parts["test"]}
    return ingest(dataset, 0.0).dataset.parts["test"]


def top1(net, part, preprocessing):
    return answer(net, evaluation_batches(part, preprocessing, 250, 0), preprocessing).metrics()["top1"]


@torch.no_grad()
def load_in_order(net, tensors):
    """CIFAR checkpoints list their tensors in the order in which the layers run."""
    values = iter(tensors)
    for layer in layers_as_they_run(net, torch.zeros(1, 3, 32, 32)):
        for own in layer.state_dict().values():
            if own.is_floating_point():
                value = next(values)
                assert own.shape == value.shape
                own.copy_(value)
    assert next(values, None) is None


@pytest.mark.parametrize(
    ("name", "file", "published"),
    [("resnet20_cifar", "resnet20-12fca82f.th", 0.9173), ("resnet56_cifar", "resnet56-4bfd9763.th", 0.9339)],
)
def test_zero_pad_shortcuts(shared, images, name, file, published):
    stored = torch.load(shared / "checkpoints" / file, map_location="cpu", weights_only=True)["state_dict"]
    net = rk.build(name).eval()
    load_in_order(net, [v for k, v in stored.items() if v.is_floating_point()])
    assert top1(net, images, AKAMASTER) == published


def test_tensorflow_padding_and_bare_projections(shared, images):
    """MLPerf Tiny's Keras ResNet-8: 87.19 % with TensorFlow's padding, about 60 % with symmetric padding."""
    pytest.importorskip("h5py")
    found = read_keras(shared / "checkpoints/mlperf_tiny_resnet8.h5")
    assert found.assumed["preprocessing"].startswith("raw: RGB 0..255")
    raw = Preprocessing(size=(32, 32), framing="squash", mean=(0.0,) * 3, std=(1 / 255,) * 3)

    def measured(**wrong):
        net = ResNet(replace(found.spec, **wrong)).eval()
        net.load_state_dict(found.tensors)
        return top1(net, images, raw)

    assert measured() == 0.8719
    assert measured(padding="symmetric") == pytest.approx(0.602, abs=0.001)
