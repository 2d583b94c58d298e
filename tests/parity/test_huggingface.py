"""transformers in and out: logits, features, pixels and labels, with randomised norms."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.data.preprocess import Preprocessing
from resnetkit.export import to_huggingface
from resnetkit.weights import from_huggingface
from resnetkit.weights.files import Model
from tests.conftest import randomise_near_epsilon

CROP = Preprocessing(size=(96, 64), resize=110, interpolation="bicubic")
SQUASH = Preprocessing(size=(96, 64), framing="squash", mean=(0.5,) * 3, std=(0.25,) * 3)
GREY = Preprocessing(size=(64, 64), resize=70, channels="grey", mean=(0.3,), std=(0.2,))
KINDS = {
    "basic": {"layer_type": "basic", "hidden_sizes": [16, 32, 64, 64], "embedding_size": 24},
    "stride on the 3x3": {"hidden_sizes": [64, 128, 256, 512]},
    "stride on the 1x1": {"hidden_sizes": [64, 128, 256, 512], "downsample_in_bottleneck": True},
    "stride at once": {"hidden_sizes": [64, 128], "depths": [2, 1], "downsample_in_first_stage": True},
}
OURS = {
    "basic": ("resnet18", {"widths": (16, 32, 64, 64), "stem_width": 24}),
    "stride on the 3x3": ("resnet50", {"widths": (16, 32, 64, 128)}),
    "stride on the 1x1": ("resnet50", {"widths": (16, 32, 64, 128), "stride_in_1x1": True}),
    "stride at once": ("resnet50", {"widths": (16, 32), "depths": (2, 1), "strides": (2, 2)}),
}


def differ(expected, got):
    """Whether outputs are further apart than the tolerance."""
    return bool((expected - got).abs().max() > 1e-4 * max(1, expected.abs().max()))


def written(kind, folder, pixels=CROP):
    name, choices = OURS[kind]
    network = randomise_near_epsilon(rk.build(name, 7, **{"depths": (1, 2, 2, 1)} | choices)).eval()
    rk.export(Model(network, [f"class {i}" for i in range(7)], pixels), to="huggingface", out=folder)
    return network


@torch.inference_mode()
def logits(transformers, folder, x):
    return transformers.AutoModelForImageClassification.from_pretrained(folder)(x).logits


@pytest.mark.parametrize("kind", OURS)
def test_out(kind, tmp_path, transformers):
    network = written(kind, tmp_path / "out")
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        assert not differ(network(x), logits(transformers, tmp_path / "out", x))
        stages = [f"stage{i + 1}" for i in range(len(network.spec.depths))]
        maps = transformers.ResNetBackbone.from_pretrained(tmp_path / "out", out_features=stages)(x).feature_maps
        assert not any(differ(ours, theirs) for ours, theirs in zip(network.features(x)[1:], maps, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ResNetForImageClassification", "ResNetBackbone"])
def test_in(kind, name, tmp_path, transformers):
    config = transformers.ResNetConfig(**{"depths": [1, 2, 2, 1], "num_labels": 7} | KINDS[kind])
    theirs = randomise_near_epsilon(getattr(transformers, name)(config)).eval()
    theirs.save_pretrained(tmp_path)
    found = to_huggingface.read(tmp_path)
    ours = ResNet(found.spec).eval()
    ours.load_state_dict(found.tensors)
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        if name == "ResNetForImageClassification":
            assert not differ(theirs(x).logits, ours(x))
        else:
            assert found.spec.num_classes == 0
            assert not differ(theirs(x).feature_maps[-1], ours.features(x)[-1])


def test_a_backbone_without_a_classifier_goes_out(tmp_path, transformers):
    network = randomise_near_epsilon(rk.build("resnet18", 0, depths=(1, 1, 1, 1))).eval()
    rk.export(Model(network, [], CROP), to="huggingface", out=tmp_path / "out")
    x = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        maps = transformers.ResNetBackbone.from_pretrained(tmp_path / "out", out_features=["stage4"])(x).feature_maps
        assert not differ(network.features(x)[-1], maps[-1])


def test_a_stride_in_another_place_shows(tmp_path, transformers):
    network = written("stride on the 1x1", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"downsample_in_bottleneck": False}))
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        assert differ(network(x), logits(transformers, tmp_path / "out", x))


def test_another_epsilon_shows(tmp_path, transformers):
    network = written("stride on the 3x3", tmp_path / "out")
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eps = 1.001e-5  # keras.applications'
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        assert differ(network(x), logits(transformers, tmp_path / "out", x))


@pytest.mark.parametrize("pixels", [CROP, SQUASH, GREY], ids=["crop", "squash", "grey"])
@pytest.mark.parametrize("size", [(152, 110), (80, 208), (110, 110)])
def test_the_processor_makes_our_pixels(pixels, size, tmp_path, transformers):
    """Within a grey level where the rounding of an odd margin agrees, as the card says."""
    network = rk.build("resnet18", 2, in_channels=len(pixels.mean), depths=(1, 1, 1, 1))
    rk.export(Model(network, ["yes", "no"], pixels), to="huggingface", out=tmp_path / "out")
    assert_same_pixels(transformers.AutoImageProcessor.from_pretrained(tmp_path / "out"), pixels, size)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.8}),
        ("ConvNext", {}),  # 384 is squashed
        ("Bit", {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}, "resample": 2}),
        ("ViT", {"size": {"height": 40, "width": 60}}),
        ("ViT", {"size": {"height": 40, "width": 60}, "do_normalize": False}),
    ],
)
def test_their_processors_are_read(name, choices, tmp_path, transformers):
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**choices)
    processor.save_pretrained(tmp_path)
    assert_same_pixels(processor, from_huggingface.preprocessing({}, tmp_path), (480, 1200))


def assert_same_pixels(processor, pixels, size):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    image = image.convert("L") if pixels.channels == "grey" else image
    theirs = processor(image, return_tensors="pt").pixel_values
    ours = pixels.normalise(pixels.frame(pixels.decode(image))[None])
    assert ours.shape == theirs.shape
    std = torch.tensor(pixels.std).view(-1, 1, 1)
    assert ((ours - theirs) * std * 255).abs().max() < 1.5


def test_labels(tmp_path, transformers):
    written("basic", tmp_path / "out")
    config = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").config
    assert config.id2label == {i: f"class {i}" for i in range(7)} and config.label2id["class 3"] == 3
