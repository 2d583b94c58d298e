"""Our networks in Keras: the same logits there, and the same tensors back."""

import json
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from torch import nn

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.export.to_keras import save_keras
from resnetkit.weights.from_keras import read_keras
from tests.conftest import randomise
from tests.keras_models import close, images, logits

SMALL = {"widths": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "stem_width": 8}
NARROW = SMALL | {"widths": (4, 8, 12, 16)}
TINY = {"depths": (2, 1, 1)}
CASES = [
    ("resnet18", SMALL),
    ("resnet50", NARROW),
    ("resnet50", NARROW | {"stride_in_1x1": True, "conv_bias": True}),
    ("resnet50d", NARROW),
    ("resnext50_32x4d", SMALL | {"widths": (64, 64, 64, 128), "cardinality": 4}),
    ("seresnet50", NARROW),
    ("ecaresnet50d", NARROW),
    ("preact_resnet50", NARROW),
    ("preact_resnet50", NARROW | {"stride_in_last_block": True, "pool_padding": "zeros"}),
    ("preact_resnet18", SMALL | {"activation": "gelu", "padding": "same"}),
    ("resnet18", SMALL | {"activation": "silu", "norm": "group"}),
    ("resnet18", SMALL | {"padding": "same_in_stages", "pool_padding": "none"}),
    ("resnet18", SMALL | {"output_stride": 8}),
    ("resnet50", NARROW | {"output_stride": 16, "depths": (2, 1, 2, 2)}),
    ("resnet50", NARROW | {"stride_by": "max_pool"}),
    ("preact_resnet50", NARROW | {"stride_by": "max_pool", "stride_in_1x1": True}),
    ("fast_resnet8_cifar", {"widths": (8, 16, 24), "stem_width": 8}),
    ("resnet34_notebook", SMALL | {"strides": (1, 2, 2, 2)}),
    ("resnet20_cifar", TINY),
    ("resnet20_cifar", TINY | {"norm": "none"}),
    ("resnet20_cifar", TINY | {"norm": "frozen", "drop_path_rate": 0.2}),
    ("preact_resnet20_cifar", TINY | {"shortcut": "zero_pad"}),
    ("preact_resnet20_cifar", TINY | {"norm": "none"}),
]


def trained(network_spec, size=(37, 46)):
    net = randomise(ResNet(network_spec, size)).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.normal_(0, 0.2)
    return net


@pytest.mark.parametrize(("name", "choices"), CASES)
def test_there_and_back(keras, tmp_path, name, choices):
    net = trained(spec(name, 7, **choices))
    save_keras(net, tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2, *net.image_size)
    with torch.no_grad():
        assert close(logits(keras, model, x), net(x))
    found = read_keras(tmp_path / "model.keras")
    own = net.state_dict()
    assert found.tensors.keys() == own.keys()
    assert all(torch.equal(own[tensor], found.tensors[tensor]) for tensor in own)
    assert replace(found.spec, name=net.spec.name) == net.spec


def test_a_pool_that_keras_pads_otherwise_is_not_read(keras, tmp_path, monkeypatch):
    monkeypatch.setattr("resnetkit.export.to_keras.require_expressible", lambda net: None)
    save_keras(rk.build("resnet18d", 3, strides=(1, 3, 2, 2)), tmp_path / "model.keras")
    with pytest.raises(rk.ResnetkitError, match="is an average pool of stride 3, which is padded otherwise than ours"):
        read_keras(tmp_path / "model.keras")


def test_the_notebooks_summary(keras):
    net = rk.build_resnet((64, 64, 3), 10)
    model = rk.to_keras(net)
    assert model.count_params() == 21_315_338  # what the notebook's own code counts
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds[:5] == ["InputLayer", "Conv2D", "BatchNormalization", "Activation", "MaxPooling2D"]
    assert (kinds.count("Conv2D"), kinds.count("Add"), kinds.count("Dense")) == (36, 16, 1)
    x = images(1, 64, 64)
    probabilities = torch.as_tensor(model(x.permute(0, 2, 3, 1).contiguous(), training=False))
    with torch.no_grad():
        torch.testing.assert_close(probabilities.detach(), net.eval()(x).softmax(1), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "preact_resnet50", "resnext50_32x4d", "seresnet50", "resnet56_cifar"])
def test_full_size_networks_keep_their_name(keras, tmp_path, name):
    net = trained(spec(name), (64, 64))
    save_keras(net, tmp_path / "model.keras")
    x = images(1, 64, 64)
    with torch.no_grad():
        assert close(logits(keras, keras.saving.load_model(tmp_path / "model.keras"), x), net(x))
    assert read_keras(tmp_path / "model.keras").spec == net.spec


def test_only_built_in_layers(keras, tmp_path):
    save_keras(trained(spec("ecaresnet50d", 3, **NARROW)), tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert {layer["module"] for layer in layers} == {"keras.layers"}
    assert not any(layer["registered_name"] for layer in layers)


def test_refusals(keras, tmp_path, monkeypatch):
    with pytest.raises(rk.ResnetkitError, match=r"stages.2.0.shortcut.*no layer for DensePool2d"):
        rk.to_keras(rk.build("resnet50d", 3, **NARROW | {"output_stride": 8}))
    with pytest.raises(rk.ResnetkitError, match=r"stages.1.0.shortcut.*pads pools of stride 3 otherwise"):
        rk.to_keras(rk.build("resnet18d", 3, strides=(1, 3, 2, 2)))
    with pytest.raises(rk.ResnetkitError, match="reversible=True: its blocks would be written as plain ones"):
        rk.to_keras(rk.build("resnet20_cifar", reversible=True))
    with pytest.raises(rk.ResnetkitError, match=r"ends in \.keras"):
        save_keras(rk.build("resnet20_cifar"), tmp_path / "model.h5")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(rk.ResnetkitError, match=r"pip install 'resnetkit\[keras\]'"):
        rk.to_keras(rk.build("resnet20_cifar"))
