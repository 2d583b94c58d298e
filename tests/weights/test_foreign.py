"""Other people's checkpoints as models of ours: what they are taken for, which pixels and labels they take."""

import json

import pytest
import torch
from safetensors.torch import save_file

import resnetkit as rk
from resnetkit.data.preprocess import IMAGENET_MEAN, Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights.classes import CIFAR10, CIFAR100, imagenet
from resnetkit.weights.files import save_model
from resnetkit.weights.from_torchvision import CIFAR
from resnetkit.weights.preprocessing import parse_preprocessing
from resnetkit.weights.recognise import recognise
from tests.conftest import randomise

NETWORK = {"widths": (8, 16, 32), "stem_width": 8}


def in_their_names(net, table=CIFAR, prefix=""):
    named = {}
    for name, value in net.state_dict().items():
        module, _, kind = name.rpartition(".")
        named[f"{prefix}{table.to_theirs(module)}.{kind}"] = value
    return named


@pytest.fixture
def net():
    return randomise(rk.build("resnet20_cifar", **NETWORK)).eval()


@pytest.fixture
def checkpoint(net, tmp_path):
    """As training scripts write it: wrapped, of a DataParallel, with an epoch beside it."""
    path = tmp_path / "theirs.th"
    torch.save({"state_dict": in_their_names(net, prefix="module."), "epoch": 3}, path)
    return path


def test_a_checkpoint_gives_its_networks_numbers(net, checkpoint):
    model = rk.load(checkpoint)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.network(x), net(x))
    assert model.classes == CIFAR10 and model.preprocessing.mean == IMAGENET_MEAN
    taken = model.provenance["taken_for"]
    assert "zero-pad placement" in taken["assumed"] and "epoch" in " ".join(taken["notes"])
    for line in ("names begin with 'module.'", "ImageNet's statistics", "standard order"):
        assert line in model.report


def test_the_user_has_the_first_word_on_pixels(checkpoint):
    model = rk.load(checkpoint, "mean=0.1,0.2,0.3,std=0.5,size=24")
    expected = Preprocessing(size=(24, 24), framing="squash", mean=(0.1, 0.2, 0.3), std=(0.5,) * 3)
    assert model.preprocessing == expected
    assert model.provenance["taken_for"]["preprocessing_from"] == "as --preprocessing says"


def test_blue_first_is_turned_round_once(net, checkpoint):
    """A network that reads BGR minus a mean gives the same numbers on RGB: its first convolution is turned."""
    model = rk.load(checkpoint, "caffe")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    bgr = pixels.flip(1).float() - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    with torch.no_grad():
        expected, got = net(bgr), model.network(model.preprocessing.normalise(pixels))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("imagnet", "did you mean imagenet"),
        ("mean=a", "numbers are needed"),
        ("mean=0.5,0.5", "one number, or 3"),
        ("middle=0.5", "'middle' is none of mean"),
        ("size=0", "must be above 0"),
        ("size=2,3", "one number is needed"),
        ("channels=brg,mean=0", "must be rgb or bgr"),
    ],
)
def test_wrong_words_on_pixels_are_refused(net, text, problem):
    with pytest.raises(ResnetkitError, match=problem):
        parse_preprocessing(text, net.spec)


def test_load_state_dict_takes_their_names(net):
    other = rk.build("resnet20_cifar", **NETWORK)
    theirs = {k: v for k, v in in_their_names(net).items() if "num_batches" not in k}  # old files have no counters
    assert not any(other.load_state_dict(theirs))
    assert torch.equal(other.head.classifier.weight, net.head.classifier.weight)
    with pytest.raises(RuntimeError, match="stem.convs.conv1.weight"):
        other.load_state_dict({"unknown.weight": torch.zeros(1)})


def test_the_averaged_and_the_teacher_come_first(net):
    """Of two networks in one state dict the one that self-supervised methods keep is taken, the other is named."""
    student = {name: value + 1 for name, value in in_their_names(net, prefix="student.backbone.").items()}
    both = student | in_their_names(net, prefix="teacher.backbone.")
    found = recognise(both)
    assert torch.equal(found.tensors["stem.convs.conv1.weight"], net.stem.convs.conv1.weight)
    assert any("left out: student.backbone." in note for note in found.notes)


def test_a_config_beside_it_tells_pixels_and_labels(tmp_path):
    net = randomise(rk.build("resnet18", 3, widths=(8, 16, 24, 32)))
    folder = tmp_path / "timm"
    rk.export(
        rk.Model(net, ["ä", "b", "c"], Preprocessing(size=(64, 64), resize=72, mean=(0.1,) * 3)), to="timm", out=folder
    )
    model = rk.load(folder)
    assert model.classes == ["ä", "b", "c"] and model.preprocessing.mean == (0.1,) * 3
    assert "config beside it says" in model.report


def test_a_convolution_that_leaves_no_numbers_is_refused(checkpoint, net, tmp_path):
    net.stem.convs.conv1.weight.data[0, 0, 0, 0] = float("nan")
    path = tmp_path / "nan.safetensors"
    save_file(in_their_names(net), path)
    with pytest.raises(ModelFileRefused, match="conv1.weight"):
        rk.load(path)
    assert rk.load(path, force=True).network.spec.name


def test_our_own_file_keeps_its_pixels(net, tmp_path):
    path = tmp_path / "own.safetensors"
    save_model(rk.Model(net, CIFAR10, Preprocessing(size=(32, 32), framing="squash")), path)
    with pytest.raises(ModelFileRefused, match="its preprocessing is in the file"):
        rk.load(path, "imagenet")


def test_guessed_labels_give_way_to_those_of_the_images(checkpoint):
    """Ten outputs behind a small stem look like CIFAR-10; tested on ten other classes they are taken for these."""
    figures = rk.evaluate(checkpoint, "digits", preprocessing="unit")
    assert [row["class"] for row in figures["per_class"]] == [str(digit) for digit in range(10)]
    assert "images it was tested on" in figures["taken_for"]["classes_from"]


def test_training_starts_from_a_checkpoint(checkpoint, tmp_path):
    """What the file's network is, it stays: widths of no named network among it."""
    run = rk.train("digits", weights=checkpoint, epochs=1, img_size=16, out=tmp_path / "run")
    assert run.model.network.spec.widths == (8, 16, 32) and len(run.model.classes) == 10
    assert json.loads((run.folder / "preprocessing.json").read_text())["channels"] == "rgb"


def test_names_of_classes():
    assert len(CIFAR10) == len(set(CIFAR10)) == 10
    assert len(CIFAR100) == len(set(CIFAR100)) == 100 and sorted(CIFAR100) == CIFAR100
    names = imagenet()
    assert len(names) == len(set(names)) == 1000 and (names[0], names[281], names[999]) == (
        "tench",
        "tabby",
        "toilet tissue",
    )
