"""Exports opened by torchvision and timm, and theirs read, with randomised norms. Run in .venv-peers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.data.preprocess import Preprocessing
from resnetkit.export import to_timm, to_torchvision
from resnetkit.weights import from_timm
from resnetkit.weights.files import Model
from resnetkit.weights.recognise import recognise
from tests.conftest import randomise_near_epsilon

pytestmark = pytest.mark.peers

PIXELS = Preprocessing(size=(64, 64), resize=75, interpolation="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
THIN = {"depths": (1, 2, 1, 1)}
TORCHVISION = [
    ("resnet18", {}),
    ("resnet50", {}),
    ("resnext50_32x4d", {}),
    ("wide_resnet50_2", {}),
    ("resnet50", {"output_stride": 8}),
    ("resnet200", {"depths": (1, 2, 3, 1)}),
]
TIMM = [
    ("resnet18", "resnet18", {}),
    ("resnet50d", "resnet50d", {}),
    ("seresnet50", "seresnet50", {}),
    ("seresnet50", "seresnet50", {"widths": (48, 64, 80, 100)} | THIN),
    ("ecaresnet50d", "ecaresnet50d", {}),
    ("preact_resnet50", "resnetv2_50", {}),
    ("preact_resnet18", "resnetv2_18", {"activation": "silu"}),
    ("preact_resnet50", "resnetv2_50", {"stem": "deep", "shortcut": "pooled"} | THIN),
    ("resnet50s", "resnet50s", {"activation": "gelu"} | THIN),
    ("resnet18d", "resnet18d", {"in_channels": 1}),
    ("resnet50", "resnet50", {"output_stride": 8, "widths": (32, 64, 96, 128)} | THIN),
    ("resnext50_32x4d", "resnext50_32x4d", {"attention": "se", "in_channels": 5} | THIN),
    ("resnet34", "resnet50", {"block": "bottleneck"} | THIN),
]


def assert_equal(expected, got):
    assert (expected - got).abs().max() <= 1e-4 * max(1, expected.abs().max())


def model_of(name, **choices):
    network = randomise_near_epsilon(rk.build(name, 7, **choices)).eval()
    count = network.spec.in_channels
    channels, moments = ("grey", ((0.5,), (0.2,))) if count == 1 else ("rgb", (PIXELS.mean, PIXELS.std))
    mean, std = moments
    pixels = Preprocessing(size=(64, 64), resize=75, interpolation="bicubic", channels=channels, mean=mean, std=std)
    return Model(network, [f"class {i}" for i in range(7)], pixels)


@torch.inference_mode()
def assert_same_logits(theirs, ours):
    x = torch.randn(2, ours.spec.in_channels, 96, 64)
    assert_equal(theirs.eval()(x), ours.eval()(x))


@pytest.mark.parametrize(("name", "choices"), TORCHVISION)
def test_torchvision_opens_it_as_the_printed_lines_say(name, choices, tmp_path, torchvision_models):
    model = model_of(name, **choices)
    found = rk.export(model, to="torchvision", out=tmp_path / "out.pth")
    names = {}
    exec("\n".join(found["use"]), names)
    assert_same_logits(names["net"], model.network)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_torchvision_in(name, tmp_path, torchvision_models):
    theirs = randomise_near_epsilon(getattr(torchvision_models, name)(num_classes=7))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    found = to_torchvision.read(tmp_path / "net.pth")
    assert found.spec.name == name
    assert_same_logits(theirs, loaded(found))


@pytest.mark.parametrize(("name", "architecture", "choices"), TIMM)
def test_timm_opens_it_as_the_printed_lines_say(name, architecture, choices, tmp_path, timm):
    model = model_of(name, **choices)
    found = rk.export(model, to="timm", out=tmp_path / "out")
    names = {}
    exec("\n".join(found["use"]), names)
    assert names["net"].pretrained_cfg["architecture"] == architecture
    assert list(names["net"].pretrained_cfg["label_names"]) == model.classes
    assert_same_logits(names["net"], model.network)


@pytest.mark.parametrize("name", ["resnet50d", "seresnet50", "ecaresnet50d", "resnetv2_50", "resnetv2_50d"])
def test_timm_in(name, tmp_path, timm):
    theirs = randomise_near_epsilon(timm.create_model(name, num_classes=7)).eval()
    folder = tmp_path / "theirs"
    timm.models.save_for_hf(theirs, folder, {"label_names": list("abcdefg")}, safe_serialization=True)
    found = to_timm.read(folder)
    assert found.spec.shortcut == ("pooled" if name.endswith("d") else "projection")
    assert_same_logits(theirs, loaded(found))


def test_networks_with_the_same_tensors_and_other_numbers_are_refused(tmp_path, timm):
    """Names and shapes of resnetaa50 are resnet50's: only the architecture's name tells them apart."""
    theirs = timm.create_model("resnetaa50", num_classes=7).eval()
    unaware = loaded(recognise(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert (theirs(x) - unaware(x)).abs().max() > 1e-2 * theirs(x).abs().max()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetaa50", "num_classes": 7}))
    with pytest.raises(rk.ResnetkitError, match="resnetaa50 of timm has anti-aliased strides"):
        to_timm.read(tmp_path)


@pytest.mark.parametrize("framing", ["crop", "squash"])
def test_timm_makes_our_pixels(framing, tmp_path, timm):
    """Within a grey level."""
    model = model_of("resnet18", **THIN)
    resize = 75 if framing == "crop" else None
    model.preprocessing = Preprocessing(size=(64, 64), resize=resize, framing=framing)
    names = {}
    exec("\n".join(rk.export(model, to="timm", out=tmp_path / "out")["use"]), names)
    assert_same_pixels(names["transform"], model.preprocessing)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (334, 500), (333, 500), (601, 799), (1000, 257), (97, 101)])
def test_photos_of_any_sides_are_framed_as_torchvision_does(size, torchvision_models):
    """Within a grey level; its sides are rounded down, its margins to even."""
    from torchvision import transforms

    pixels = Preprocessing(size=(224, 224), resize=256)
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    assert_same_pixels(transforms.Compose([*steps, transforms.Normalize(pixels.mean, pixels.std)]), pixels, size)


def test_timms_pixels_are_read(tmp_path, timm):
    theirs = timm.create_model("resnet18", num_classes=7, pretrained_cfg_overlay={"crop_pct": 0.8})
    timm.models.save_for_hf(theirs, tmp_path, {"label_names": list("abcdefg")}, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert from_timm.classes(config) == list("abcdefg")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs), is_training=False)
    assert_same_pixels(transform, from_timm.preprocessing(config, tmp_path))


def assert_same_pixels(transform, pixels, size=(900, 600)):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    ours = pixels.normalise(pixels.frame(pixels.decode(image))[None])[0]
    std = torch.tensor(pixels.std).view(-1, 1, 1)
    assert ((ours - transform(image)) * std * 255).abs().max() < 1.5


def loaded(found):
    ours = ResNet(found.spec)
    ours.load_state_dict(found.tensors)
    return ours.eval()
