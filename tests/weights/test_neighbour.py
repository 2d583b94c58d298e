"""A config.json beside a checkpoint: believed where it is the checkpoint's own, else left out and named."""

import json

import pytest
import torch
from safetensors.torch import save_file

import resnetkit as rk
from resnetkit.errors import ModelFileRefused
from resnetkit.weights.from_huggingface import TABLE
from resnetkit.weights.from_torchvision import TORCHVISION
from tests.conftest import randomise
from tests.weights.test_foreign import in_their_names

TIMM = {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.1] * 3}}


@pytest.fixture
def folder(tmp_path):
    net = randomise(rk.build("resnet18", 3, widths=(8, 8, 8, 8), stem_width=8))
    save_file(in_their_names(net, TORCHVISION), tmp_path / "theirs.safetensors")
    return tmp_path


def beside(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return rk.load(folder / "theirs.safetensors")


def test_its_own(folder):
    assert beside(folder, TIMM).preprocessing.mean == (0.1,) * 3


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"mean": [0.1] * 3, "input_size": [3, 64, 64]}, "neither of timm nor of transformers"),
        ({"model_type": "bert"}, "of transformers, where its names are those of torchvision or timm"),
    ],
)
def test_that_of_another_program(folder, config, why):
    model = beside(folder, config)
    assert model.preprocessing.mean != (0.1,) * 3 and why in model.report


def test_that_of_another_number_of_channels(tmp_path):
    net = randomise(rk.build("resnet18", 3, in_channels=1, widths=(8, 8, 8, 8), stem_width=8))
    save_file(in_their_names(net, TORCHVISION), tmp_path / "theirs.safetensors")
    model = beside(tmp_path, TIMM)
    assert len(model.preprocessing.mean) == 1
    assert "left out: the preprocessing of timm's config beside it, of 3 channels for 1" in model.report


def test_that_of_another_file(folder):
    torch.save({}, folder / "pytorch_model.bin")
    model = beside(folder, TIMM)
    assert model.preprocessing.mean != (0.1,) * 3 and "goes with pytorch_model.bin" in model.report


@pytest.mark.parametrize(
    "change",
    [
        {"pretrained_cfg": [1]},
        {"pretrained_cfg": {"input_size": 5}},
        {"pretrained_cfg": {"input_size": [3, 64, 64], "mean": 1}},
        {"pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": "x"}},
        {"model_args": [1]},
        {"model_args": {"output_stride": "x"}},
    ],
)
def test_a_damaged_one_is_refused_in_one_line(folder, change):
    with pytest.raises(ModelFileRefused) as refusal:
        beside(folder, TIMM | change)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change", [{"id2label": [1]}, {"id2label": {"x": "a"}}, {"depths": 3}, {"id2label": {"0": "a", "1": None, "x": 2}}]
)
def test_a_damaged_one_of_transformers(tmp_path, change):
    net = randomise(rk.build("resnet18", 3, widths=(8, 8, 8, 8), stem_width=8))
    save_file(in_their_names(net, TABLE), tmp_path / "model.safetensors")
    config = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelFileRefused):
        rk.load(tmp_path)


def test_pixels_beside_it_are_read_as_carefully(tmp_path):
    net = randomise(rk.build("resnet18", 3, widths=(8, 8, 8, 8), stem_width=8))
    save_file(in_their_names(net, TABLE), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "resnet", "layer_type": "basic"}')
    for content in ("[1]", "[" * 100_000, " " * (2 << 20), '{"size": {"shortest_edge": 1e400}, "image_mean": [0.5]}'):
        (tmp_path / "preprocessor_config.json").write_text(content)
        with pytest.raises(ModelFileRefused, match="preprocessor_config.json"):
            rk.load(tmp_path)
