"""Keras files read without Keras give the numbers that Keras gives."""

import json
import random
import sys
import zipfile
from dataclasses import replace

import pytest
import torch

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.errors import ModelFileRefused
from resnetkit.weights.from_keras import read_keras
from tests.keras_models import RandomResNet, close, images, logits, randomise_keras

FORMATS = ("model.h5", "model.keras")
H5 = ("model.h5", "legacy.h5")
slow = pytest.mark.slow


@torch.no_grad()
def ours(spec, tensors, x):
    net = ResNet(spec)
    net.load_state_dict(tensors)
    return net.eval()(x)


def saved(model, path):
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return read_keras(path)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[slow] * (seed >= 6)) for seed in range(20)])
def test_functional_resnets_drawn_at_random(keras, tmp_path, seed):
    drawn = RandomResNet(keras, seed)
    model = randomise_keras(drawn.model(), seed)
    found = [saved(model, tmp_path / name) for name in FORMATS]
    x = images(2, *drawn.size)
    expected = logits(keras, model, x)
    for one in found:
        assert close(ours(one.spec, one.tensors, x), expected), one.spec
        assert one.spec.norm_momentum == pytest.approx(1 - drawn.momentum)
    assert found[0] == replace(found[1], tensors=found[0].tensors)


@pytest.fixture(scope="module")
def applications(keras, tmp_path_factory):
    """keras.applications' two versions, each with images, its logits and what its .keras file was found to be."""
    made = {}
    for name in ("ResNet50", "ResNet50V2"):
        model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(64, 75, 3))
        x = images(2, 64, 75)
        found = saved(randomise_keras(model), tmp_path_factory.mktemp(name) / "model.keras")
        made[name] = (model, x, logits(keras, model, x), found)
    return made


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5", *(pytest.param(f, marks=slow) for f in H5)])
@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2"])
def test_keras_applications(applications, tmp_path, name, file):
    model, x, expected, found = applications[name]
    if file == "legacy.h5":  # weights alone, as save_weights wrote them before Keras 3 and as they are published
        h5py = pytest.importorskip("h5py")
        model.save(tmp_path / "whole.h5")
        with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / file, "w") as alone:
            for layer in whole["model_weights"]:
                whole.copy(f"model_weights/{layer}", alone)
            alone.attrs.update(whole["model_weights"].attrs)
        found = read_keras(tmp_path / file)
    elif file != "model.keras":
        found = saved(model, tmp_path / file)
    assert close(ours(found.spec, found.tensors, x), expected)
    assert found.assumed["preprocessing"].split(":")[0] == {"ResNet50": "caffe", "ResNet50V2": "tf"}[name]
    assert found.spec.norm_eps == 1.001e-5
    assert ("graph" in found.assumed) == (file not in FORMATS)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ResNet50", {"stride_in_1x1": False}),
        ("ResNet50", {"norm_eps": 1e-3}),
        ("ResNet50", {"padding": "same"}),
        ("ResNet50V2", {"padding": "same_in_stages"}),
        ("ResNet50V2", {"pool_padding": "lowest"}),
        ("ResNet50V2", {"strides": (1, 2, 2, 2)}),
    ],
)
def test_another_padding_epsilon_or_stride_gives_other_numbers(applications, name, wrong):
    """Tensors fit all of these: that the numbers agree above is what tells."""
    _, x, expected, found = applications[name]
    assert not close(ours(replace(found.spec, **wrong), found.tensors, x), expected)


def small(keras, *, add=None, norm=None, end=None, before=None):
    """One basic block, each part replaceable."""
    L = keras.layers
    inputs = keras.Input((20, 24, 3))
    x = before(inputs) if before else inputs
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", name="first")(x)))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x)))
    y = (norm or L.BatchNormalization())(L.Conv2D(8, 3, padding="same", name="second")(y))
    y = add(x, y) if add else L.Add()([x, y])
    x = L.GlobalAveragePooling2D()(L.ReLU()(y))
    return keras.Model(inputs, end(x) if end else L.Dense(4, activation="softmax")(x))


def test_layers_that_scale_pixels_become_the_preprocessing(keras, tmp_path):
    L = keras.layers
    scale = L.Rescaling(1 / 127.5, offset=-1)
    normalise = L.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7])
    model = randomise_keras(small(keras, before=lambda x: normalise(scale(L.RandomFlip()(x)))))
    pixels = torch.randint(0, 256, (2, 3, 20, 24), dtype=torch.uint8)
    expected = logits(keras, model, pixels.float())
    for file in FORMATS:
        found = saved(model, tmp_path / file)
        assert close(ours(found.spec, found.tensors, found.preprocessing.normalise(pixels)), expected)
        assert found.preprocessing.size == (20, 24)
        assert any("RandomFlip" in note for note in found.notes)


def test_a_size_is_kept_where_nothing_is_said_of_pixels(keras, tmp_path):
    small(keras).save(tmp_path / "model.keras")
    for words in (None, "tf", "mean=0.5,std=0.5"):
        pixels = rk.load(tmp_path / "model.keras", words).preprocessing
        assert (pixels.size, pixels.framing, pixels.resize) == ((20, 24), "squash", None)
    assert rk.load(tmp_path / "model.keras", "size=40").preprocessing.size == (40, 40)
    cropped = rk.load(tmp_path / "model.keras", "crop=0.5").preprocessing
    assert (cropped.size, cropped.framing, cropped.resize) == ((20, 24), "crop", 40)


def test_a_size_that_is_left_open_is_named(keras, tmp_path):
    """That which is taken; 32 pixels behind a 3x3 stem. A user's own is none that is assumed."""
    L = keras.layers
    inputs = keras.Input((None, None, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(inputs)))
    y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))
    y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(L.ReLU()(y)))
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, y])))
    keras.Model(inputs, L.Dense(4)(x)).save(tmp_path / "model.keras")
    assert "assumed size: 32x32: the file leaves" in rk.load(tmp_path / "model.keras").report
    assert "assumed size" not in rk.load(tmp_path / "model.keras", "size=40").report


@pytest.mark.parametrize("side", ["160", [1], 160.5, 0, -8, 1_000_000, True])
def test_a_size_that_is_none_is_refused(keras, tmp_path, side):
    path = tmp_path / "model.keras"
    small(keras).save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, side, 24, 3]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileRefused, match="model.keras: "):
        rk.load(path)


def test_adapted_statistics_are_read(keras, tmp_path):
    layer = keras.layers.Normalization()
    layer.adapt(torch.rand(50, 4, 4, 3).numpy() * 255)
    model = small(keras, before=layer)
    found = saved(model, tmp_path / "model.keras")
    pixels = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8)
    expected = torch.as_tensor(layer(pixels.permute(0, 2, 3, 1).float())).permute(0, 3, 1, 2)
    torch.testing.assert_close(found.preprocessing.normalise(pixels), expected, rtol=1e-4, atol=1e-4)


def test_a_model_in_a_model(keras, tmp_path):
    """Transfer learning's usual shape: a network as one layer, with another head."""
    L = keras.layers
    whole = small(keras, end=lambda x: x)
    inner = keras.Model(whole.inputs, whole.layers[-2].output, name="base")
    inputs = keras.Input((20, 24, 3))
    functional = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(inner(inputs, training=False))))
    sequential = keras.Sequential([inputs, inner, L.GlobalAveragePooling2D(), L.Dropout(0.5), L.Dense(3)])
    x = images(2, 20, 24)
    for model in (functional, sequential):
        randomise_keras(model)
        for file in FORMATS:
            found = saved(model, tmp_path / file)
            assert close(ours(found.spec, found.tensors, x), logits(keras, model, x))


def test_what_the_file_lacks_is_said(keras, tmp_path):
    found = saved(small(keras, norm=keras.layers.BatchNormalization(scale=False)), tmp_path / "model.keras")
    assert any("got a scale of ones" in note for note in found.notes)
    headless = saved(keras.applications.ResNet50(weights=None, include_top=False), tmp_path / "model.keras")
    assert headless.spec.num_classes == 0
    assert any("ends before the average pool" in note for note in headless.notes)
    assert headless.preprocessing is None


REFUSED = {
    "no part of the residual networks": lambda k: small(k, before=k.layers.SeparableConv2D(3, 1)),
    "a Lambda is no part": lambda k: small(k, before=k.layers.Lambda(lambda x: x * 2)),
    "a LeakyReLU is no part": lambda k: small(k, before=k.layers.LeakyReLU()),
    "max_value=6.0 is none of ours": lambda k: small(k, end=lambda x: k.layers.ReLU(max_value=6.0)(x)),
    "its gates come from": lambda k: small(k, add=lambda x, y: k.layers.Add()([x, gated(k, y, "relu")])),
    "no shortcut": lambda k: small(k, add=lambda x, y: y),
    "eps 0.01, where the network": lambda k: small(k, norm=k.layers.BatchNormalization(epsilon=0.01)),
    "layer second (Conv2D): is not followed by a batch norm": lambda k: small(k, norm=k.layers.Activation("linear")),
    "has no place here": lambda k: small(k, end=lambda x: k.layers.Dense(4)(k.layers.Dense(9, "relu")(x))),
    "sigmoid": lambda k: small(k, end=lambda x: k.layers.Dense(1, "sigmoid")(x)),
    "2 outputs": lambda k: small(k, end=lambda x: [k.layers.Dense(2)(x), k.layers.Dense(3)(x)]),
    "used 2 times": lambda k: shared(k),
    "padding same after zeros (2, 2, 2, 2)": lambda k: small(k, before=k.layers.ZeroPadding2D(2)),
}


def gated(keras, x, last):
    L = keras.layers
    pooled = L.GlobalAveragePooling2D(keepdims=True)(x)
    return L.Multiply()([x, L.Conv2D(8, 1, activation=last)(L.Conv2D(8, 1, activation="relu")(pooled))])


def shared(keras):
    conv = keras.layers.Conv2D(3, 3, padding="same")
    return small(keras, before=lambda x: conv(conv(x)))


@pytest.mark.parametrize("says", REFUSED)
def test_what_is_no_network_of_ours_is_refused_by_name(keras, tmp_path, says):
    model = REFUSED[says](keras)
    for file in FORMATS:
        with pytest.raises(ModelFileRefused) as error:
            saved(model, tmp_path / file)
        assert says in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_not_what_they_claim(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "text.h5").write_text("not a model")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {}}))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", bytes(10_000_000))
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (10**6, 10**6), "f4", chunks=(100, 100))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("/etc/passwd", "/")
    with h5py.File(tmp_path / "alone.h5", "w") as file:
        file["layers/dense/vars/0"] = torch.zeros(2).numpy()
    with h5py.File(tmp_path / "python.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "MyModel", "config": {}})
    for file, says in {
        "text.h5": "neither an HDF5 file nor",
        "cut.h5": "damaged HDF5",
        "other.keras": "without config.json",
        "bomb.keras": "declares 10000000 bytes",
        "huge.h5": "larger than the file",
        "link.h5": "is a link",
        "alone.h5": "save the whole model",
        "python.h5": "a MyModel is a model written in Python",
        "absent.h5": "no such",
    }.items():
        with pytest.raises(ModelFileRefused) as error:
            read_keras(str(tmp_path / file))
        assert says in str(error.value) and str(tmp_path / file) in str(error.value)


def test_mutated_configs_are_refused_or_read(keras, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.h5"
    small(keras).save(path)
    draw = random.Random(0)
    refused = 0
    with h5py.File(path) as file:
        config = file.attrs["model_config"]
    for _ in range(150):
        mutated = json.loads(config)
        place, key = draw.choice(list(places(mutated)))
        place[key] = draw.choice([None, -1, 10**9, 1.5, "x", [], {}, [1, 2], True, float("nan"), "Lambda"])
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(mutated)
        try:
            read_keras(path)
        except ModelFileRefused as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


def places(value):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(inner)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(rk.ResnetkitError, match=r"pip install 'resnetkit\[keras\]'"):
        read_keras(tmp_path / "model.h5")
