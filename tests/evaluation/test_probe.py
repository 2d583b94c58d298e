"""Stored moments of batch norms settle what names and shapes cannot tell of a foreign checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.cli.main import app
from resnetkit.data.parts import Dataset, Part
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation import candidates, probe_images
from resnetkit.evaluation.moments import fit
from resnetkit.weights.from_torchvision import CIFAR, TORCHVISION
from resnetkit.weights.preprocessing import parse_preprocessing
from tests.weights.test_foreign import in_their_names

CLASSES = ["a", "b", "c", "d"]
SMALL = {"widths": (8, 16, 32), "stem_width": 8, "depths": (1, 1, 1), "block": "basic"}
PHOTO = {"widths": (4, 8, 16, 16), "stem_width": 8, "depths": (1, 1, 1, 1), "block": "bottleneck"}


def pictures(count, side):
    """Smooth coloured patterns, of the spectrum that photographs have and noise has not; red is brighter than blue."""
    coarse = torch.rand(count, 3, 5, 5) * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    return (nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture
def images(monkeypatch):
    """Opened whatever name is given; photographs of 48 pixels for the ImageNet stem."""

    def given(side, labels=None):
        torch.manual_seed(1)
        pixels = pictures(160, side)
        labels = torch.zeros(160, dtype=torch.long) if labels is None else labels(pixels)
        part = Part(pixels, labels, [str(i) for i in range(160)])
        monkeypatch.setattr(probe_images, "open_dataset", lambda _: Dataset("x", CLASSES, {"train": part}))
        return pixels

    return given


def as_prepared(pixels, words, network):
    preprocessing, blue_first = parse_preprocessing(words, network)
    return preprocessing.normalise(pixels.flip(1) if blue_first else pixels)


def trained(network, pixels, words):
    """A network whose norms store the moments of these pixels, as training leaves them."""
    net = ResNet(network).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.momentum = None  # the mean over batches
    with torch.no_grad():
        net(as_prepared(pixels, words, network))
    return net.eval()


def probed(tmp_path, net, table, **options):
    path = tmp_path / "theirs.safetensors"
    save_file({k: v.contiguous() for k, v in in_their_names(net, table).items()}, path)
    return rk.probe(path, "images", **options)


def verdicts(model):
    return {what: (v["taken"], v["by"]) for what, v in model.provenance["taken_for"]["probe"]["verdicts"].items()}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "imagenet"),
        ({"padding": "same"}, "raw"),
        ({"zero_pad": "end"}, "tf"),
        ({"shortcut": "none"}, "caffe"),
    ],
)
def test_a_small_network_is_what_reproduces_its_moments(tmp_path, images, wrong, words):
    """Each differs from what is assumed of CIFAR names in one choice and in its pixels."""
    true = spec("resnet20_cifar", 4, **SMALL | {"shortcut": "zero_pad"} | wrong)
    net = trained(true, images(32), words)
    model = probed(tmp_path, net, CIFAR)
    found = model.network.spec
    assert replace(found, name=true.name, zero_pad=true.zero_pad) == true
    assert found.zero_pad == true.zero_pad or true.shortcut == "none"
    assert {by for _, by in verdicts(model).values()} == {"moments"}
    assert verdicts(model)["preprocessing"][0] == words
    assert model.provenance["taken_for"]["blue_first"] is (words == "caffe")
    pixels = pictures(2, 32)
    with torch.no_grad():
        expected = net(as_prepared(pixels, words, true))
        torch.testing.assert_close(model.network(model.preprocessing.normalise(pixels)), expected, rtol=1e-3, atol=1e-3)


def test_the_place_of_a_bottlenecks_stride(tmp_path, images, monkeypatch):
    true = spec("resnet50", 4, **PHOTO, stride_in_1x1=True, padding="same")
    monkeypatch.setattr("resnetkit.weights.preprocessing.PHOTO_SIZE", 48)
    net = trained(true, images(55)[..., 3:51, 3:51], "imagenet")
    model = probed(tmp_path, net, TORCHVISION)
    assert verdicts(model)["stride_in_1x1"] == ("True", "moments")
    assert verdicts(model)["padding"] == ("same", "moments")
    assert model.network.spec.stride_in_1x1 and model.network.spec.padding == "same"
    assert "stride_in_1x1" not in model.provenance["taken_for"]["assumed"]


def test_nothing_is_chosen_on_images_of_another_kind(tmp_path, images, monkeypatch):
    true = spec("resnet20_cifar", 4, **SMALL | {"padding": "same"})
    net = trained(true, images(32), "imagenet")
    noise = Part(torch.randint(0, 2, (160, 3, 32, 32), dtype=torch.uint8) * 255, torch.zeros(160).long(), ["x"] * 160)
    monkeypatch.setattr(probe_images, "open_dataset", lambda _: Dataset("x", CLASSES, {"train": noise}))
    model = probed(tmp_path, net, CIFAR)
    assert {by for _, by in verdicts(model).values()} == {None}
    assert model.network.spec.padding == "symmetric"
    assert "not settled" in model.report and "unlike those it was trained on" in model.report


def test_what_the_user_tells_stays_and_a_contradiction_is_said(tmp_path, images):
    net = trained(spec("resnet20_cifar", 4, **SMALL), images(32), "imagenet")
    model = probed(tmp_path, net, CIFAR, preprocessing="tf")
    assert verdicts(model)["preprocessing"] == ("tf", "told")
    assert "BUT THE IMAGES SPEAK FOR imagenet" in model.report


def test_labels_rank_what_moments_do_not(tmp_path, images, monkeypatch):
    """Where no margin would do, the candidate that answers rightly is taken: here the labels are its answers."""
    monkeypatch.setattr("resnetkit.evaluation.verdicts.MARGIN", 1e9)
    true = spec("resnet20_cifar", 4, **SMALL | {"padding": "same"})
    net = trained(true, images(32), "imagenet")
    with torch.no_grad():
        net.head.classifier.weight.mul_(20)
        net.head.classifier.bias.sub_(net(as_prepared(images(32), "imagenet", true)).mean(0))
    images(32, lambda pixels: net(as_prepared(pixels, "imagenet", true)).argmax(1))
    monkeypatch.setattr("resnetkit.weights.foreign.class_names", lambda *_: CLASSES)
    model = probed(tmp_path, net, CIFAR, preprocessing="imagenet")
    assert verdicts(model)["padding"] == ("same", "labels")
    assert verdicts(model)["shortcut"] == ("zero_pad", "labels")


def test_the_distance_is_the_divergence_of_normal_distributions():
    """Against torch.distributions, for a network of one norm."""
    net = ResNet(spec("resnet20_cifar", **SMALL)).eval()
    norm = net.stem.convs.norm1
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(8, 3, 8, 8)
    maps = net.stem.convs.conv1(x).transpose(0, 1).flatten(1)
    given = torch.distributions.Normal(maps.mean(1), (maps.var(1, correction=0) + norm.eps).sqrt())
    stored = torch.distributions.Normal(norm.running_mean, (norm.running_var + norm.eps).sqrt())
    expected = torch.distributions.kl_divergence(given, stored).mean().item()
    assert fit(net, list(x.chunk(2)), first=True).distance == pytest.approx(expected, rel=1e-4)


def test_what_is_no_question_is_refused(tmp_path, images):
    images(32)
    net = ResNet(spec("resnet20_cifar", 4, **SMALL | {"norm": "group"}))
    with pytest.raises(ResnetkitError, match="no batch norm"):
        probed(tmp_path, net, CIFAR)


def test_loose_images_without_labels_will_do(tmp_path):
    pixels = pictures(40, 32)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i:02}.png")
    preprocessing, _ = parse_preprocessing("unit", spec("resnet20_cifar"))
    found = probe_images.read_images(tmp_path, CLASSES, preprocessing, 36)
    assert found.labels is None and [len(group) for group in found.views["whole"]] == [9] * 4
    for picture in sorted(tmp_path.glob("*.png"))[20:]:
        picture.write_bytes(b"damaged")
    with pytest.raises(ResnetkitError, match="20 readable images; a probe needs 32"):
        probe_images.read_images(tmp_path, CLASSES, preprocessing, 100)


@pytest.mark.parametrize(
    "file", [pytest.param("resnet20-12fca82f.th", marks=pytest.mark.slow), "mlperf_tiny_resnet8.h5"]
)
def test_published_checkpoints(shared, monkeypatch, file):
    """Pixels, shortcut and padding of published networks, as if nothing had told them."""
    monkeypatch.setattr("resnetkit.weights.foreign.by_hash", lambda _: None)
    model = rk.probe(shared / "checkpoints" / file, shared / "data/cifar10")
    found = verdicts(model)
    assert found["preprocessing"] == ("imagenet" if "20" in file else "raw", "moments")
    assert found["padding"] == ("symmetric", "moments") if "20" in file else ("same", "told")
    ranking = model.provenance["taken_for"]["probe"]["networks"]
    assert ranking[0]["padding"] == found["padding"][0] and ranking[0]["top1"] > 0.9
    if "20" in file:
        assert found["shortcut"] == ("zero_pad", "moments") and model.network.spec.name == "resnet20_cifar"
        assert "plain20_cifar" not in model.provenance["taken_for"]["names"]
    else:
        assert "the images agree" in model.provenance["taken_for"]["probe"]["verdicts"]["padding"]["reason"]


def test_the_command(tmp_path, capsys):
    for i, picture in enumerate(pictures(32, 32)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i:02}.png")
    pixels = torch.stack([Preprocessing(size=(32, 32), framing="squash").decode(p) for p in tmp_path.glob("*.png")])
    net = trained(spec("resnet20_cifar", 4, **SMALL | {"padding": "same"}), pixels, "raw")
    save_file(in_their_names(net, CIFAR), tmp_path / "theirs.safetensors")
    theirs, own, images = (str(tmp_path / name) for name in ("theirs.safetensors", "own.safetensors", ""))
    app(["inspect", theirs, "--probe", images], standalone_mode=False)
    assert "padding: same; distance" in capsys.readouterr().out
    app(["convert", theirs, own, "--probe", images, "--json"], standalone_mode=False)
    verdicts = json.loads(capsys.readouterr().out)["taken_for"]["probe"]["verdicts"]
    assert verdicts["preprocessing"]["taken"] == "raw" and verdicts["padding"]["by"] == "moments"
    assert rk.load(own).network.spec.padding == "same"
    with pytest.raises(ResnetkitError, match="says what it is"):
        rk.probe(own, images)


def test_every_choice_is_a_network_and_the_loaded_one_comes_first():
    for name in ("resnet50", "resnet50d", "preact_resnet50", "resnet20_cifar"):
        loaded = spec(name)
        open_ = candidates.choices(loaded, [name])
        assert next(candidates.combinations(loaded, open_))[1] == loaded
