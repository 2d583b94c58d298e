"""Other people's checkpoints as models of ours: what they are taken for, which pixels and labels they take."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import resnetkit as rk
from resnetkit.architecture.variants import spec
from resnetkit.cli.main import app
from resnetkit.data.preprocess import IMAGENET_MEAN, Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights import from_timm
from resnetkit.weights.classes import CIFAR10, CIFAR100, imagenet
from resnetkit.weights.files import require_channels
from resnetkit.weights.foreign import GUESSES, adopt_classes
from resnetkit.weights.from_torchvision import CIFAR, TORCHVISION
from resnetkit.weights.load import is_foreign, transfer
from resnetkit.weights.preprocessing import parse_preprocessing, usual
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


def test_a_small_stem_under_the_names_of_a_large_one_may_have_kept_its_pool():
    small, large = (rk.build("resnet18", stem=stem, widths=(8, 16, 24, 32)) for stem in ("3x3", "7x7"))
    assert "stem pool" in recognise(in_their_names(small, TORCHVISION)).assumed
    assert "stem pool" not in recognise(in_their_names(large, TORCHVISION)).assumed


def test_the_usual_pixels_of_a_kind():
    """timm's presets of resnetv2, and what a crop alone says of a network for small images."""
    assert usual(spec("preact_resnet50"), "timm")[0].mean == (0.5,) * 3
    assert usual(spec("preact_resnet50"), "torchvision")[0].mean == IMAGENET_MEAN
    small, _ = parse_preprocessing("crop=0.8", spec("resnet20_cifar"))
    assert (small.size, small.resize) == ((32, 32), 40)
    assert parse_preprocessing("kuangliu", spec("resnet20_cifar"))[0].std == (0.2023, 0.1994, 0.2010)


def test_what_names_of_timm_leave_open():
    """Its resnetv2 with a deep stem pools in its shortcuts; with group norm and a 7x7 stem it is BiT."""
    deep = rk.build("preact_resnet18", stem="deep", shortcut="pooled", num_classes=4)
    found = recognise(in_timms_names(deep))
    assert found.spec.shortcut == "pooled" and "as timm has it" in found.assumed["shortcut"]
    told = recognise(in_timms_names(deep), {"shortcut": "projection"})
    assert told.spec.shortcut == "projection" and "shortcut" not in told.assumed
    with pytest.raises(ResnetkitError, match="is BiT, whose weight standardisation"):
        recognise(in_timms_names(rk.build("preact_resnet50", norm="group", num_classes=4)))
    with pytest.raises(ResnetkitError, match="output_stride 8 pool as TensorFlow pads"):
        recognise(in_timms_names(deep), {"output_stride": 8})


def in_timms_names(net):
    table = next(t for t in from_timm.TABLES if t.only.get("preactivation") and t.only["stem"] == net.spec.stem)
    named = in_their_names(net, table)
    return named | {"head.fc.weight": named["head.fc.weight"][..., None, None]}


def test_the_user_has_the_first_word_on_pixels(checkpoint):
    model = rk.load(checkpoint, "mean=0.1,0.2,0.3,std=0.5,size=24")
    expected = Preprocessing(size=(24, 24), framing="squash", mean=(0.1, 0.2, 0.3), std=(0.5,) * 3)
    assert model.preprocessing == expected
    assert model.provenance["taken_for"]["preprocessing_from"] == "as --preprocessing says"


def test_pixels_are_said_in_words(checkpoint):
    with pytest.raises(ModelFileRefused, match=r"a word, as imagenet, or mean=...,std=...,size=...; not Prepro"):
        rk.load(checkpoint, Preprocessing(size=(32, 32), framing="squash"))


def test_inspect_takes_the_users_word_on_pixels(checkpoint):
    done = CliRunner().invoke(app, ["inspect", str(checkpoint), "--preprocessing", "tf", "--json"])
    assert json.loads(done.stdout)["preprocessing"]["mean"] == [0.5] * 3


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
        *((f"size={size}", "size=") for size in ("inf", "nan", "0.5", "1e9")),
        ("crop=1.5", "at most 1"),
        ("mean=nan", "numbers are needed"),
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


def test_whatever_was_loaded_takes_their_names(net, tmp_path):
    theirs = in_their_names(net)
    torch.save(theirs, tmp_path / "theirs.pth")
    rk.Model(net, list("0123456789"), Preprocessing(size=(32, 32), resize=36)).save(tmp_path / "ours.safetensors")
    for file in ("theirs.pth", "ours.safetensors"):
        network = rk.load(tmp_path / file).network
        torch.nn.init.zeros_(network.head.classifier.weight)
        assert not any(network.load_state_dict(theirs))
        assert torch.equal(network.head.classifier.weight, net.head.classifier.weight)


def test_the_notebooks_network_takes_their_names():
    first, second = (rk.build_resnet((32, 32, 3), 5) for _ in range(2))
    theirs = in_their_names(first, table=TORCHVISION)
    assert "layer1.0.conv1.weight" in theirs and not any(second.load_state_dict(theirs))
    assert torch.equal(second.head.classifier.weight, first.head.classifier.weight)


def test_an_averaged_copy_without_counters_comes_first(net):
    student, averaged = (in_their_names(net, prefix=prefix) for prefix in ("net.", "ema."))
    found = recognise(student | {n: v + 1 for n, v in averaged.items() if "num_batches" not in n})
    assert found.spec.num_classes == net.spec.num_classes
    assert torch.equal(found.tensors["stem.convs.conv1.weight"], net.stem.convs.conv1.weight + 1)


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
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"label_names": ["a", "b"]}))
    fewer = rk.load(folder)
    assert fewer.classes == ["class 0", "class 1", "class 2"]
    assert "left out: the 2 labels of timm's config beside it, for 3 classes" in fewer.report


def test_blue_comes_first_of_three_channels_alone():
    with pytest.raises(rk.ResnetkitError, match="blue comes first of three channels, and the network takes 5"):
        parse_preprocessing("mean=0.5,std=0.2,channels=bgr", spec("resnet18", in_channels=5))


def test_a_convolution_that_leaves_no_numbers_is_refused(checkpoint, net, tmp_path):
    net.stem.convs.conv1.weight.data[0, 0, 0, 0] = float("nan")
    path = tmp_path / "nan.safetensors"
    save_file(in_their_names(net), path)
    with pytest.raises(ModelFileRefused, match="conv1.weight"):
        rk.load(path)
    assert rk.load(path, force=True).network.spec.name


def test_our_own_file_keeps_its_pixels(net, tmp_path):
    path = tmp_path / "own.safetensors"
    rk.Model(net, CIFAR10, Preprocessing(size=(32, 32), framing="squash")).save(path)
    with pytest.raises(ModelFileRefused, match="its preprocessing is in the file"):
        rk.load(path, "imagenet")


def test_guessed_labels_give_way_to_those_of_the_images(checkpoint):
    """Ten outputs behind a small stem look like CIFAR-10; tested on ten other classes they are taken for these."""
    figures = rk.evaluate(checkpoint, "digits", preprocessing="unit")
    assert [row["class"] for row in figures["per_class"]] == [str(digit) for digit in range(10)]
    assert "images it was tested on" in figures["taken_for"]["classes_from"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_our_own_tensors_with_scaled_branches(prefix, tmp_path):
    """Fixup and SkipInit begin otherwise and are, once trained, the same."""
    choices = {"norm": "none", "branch_scale": "fixup", **NETWORK}
    net = randomise(rk.build("resnet20_cifar", **choices)).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # Fixup begins with zeros
            parameter.normal_(0, 0.1)
    torch.save({f"{prefix}{name}": value for name, value in net.state_dict().items()}, tmp_path / "own.pt")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(x)
        assert torch.equal(rk.load(tmp_path / "own.pt").network(x), expected)
        again = rk.build("resnet20_cifar", weights=tmp_path / "own.pt", **choices).eval()
        assert torch.equal(again(x), expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer1.0.conv2.weight", (8, 0, 3, 3)),
        ("layer1.0.conv2.weight", (8,)),
        ("fc.weight", (2**59, 0)),
        ("fc.weight", ()),
        ("conv1.weight", ()),
    ],
)
def test_tensors_of_no_shape_that_a_network_has_are_one_line(name, shape, tmp_path):
    net = rk.build("resnet50", 5, widths=(8, 16, 24, 32), stem_width=8)
    tensors = in_their_names(net, TORCHVISION)
    save_file(tensors | {name: torch.zeros(shape)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelFileRefused) as refused:
        rk.load(tmp_path / "odd.safetensors")
    assert len(str(refused.value).splitlines()) == 1 and "odd.safetensors: " in str(refused.value)


def test_a_name_in_a_file_writes_nothing_into_the_terminal(net, tmp_path):
    save_file(in_their_names(net) | {"layer1.0.\x1b[2J\nme": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelFileRefused, match=r"layer1.0.\\x1b\[2J\\nme: a part of a block") as refused:
        rk.load(tmp_path / "odd.safetensors")
    assert str(refused.value).isprintable()


def test_pixels_of_other_channels_than_the_network_takes_are_refused():
    pixels = Preprocessing(size=(32, 32), resize=36, channels="rgb")
    with pytest.raises(ResnetkitError, match="takes 1 channels, and its preprocessing gives 3"):
        require_channels(pixels, spec("resnet18", in_channels=1))


def guessed(names, classes_from=GUESSES[1]):
    return rk.Model(None, list(names), None, {}, {"taken_for": {"classes_from": classes_from}})


def test_numbered_folders_are_the_numbers_of_the_outputs():
    """Folders come in the order of text: 0, 1, 10, 11, 2, ..."""
    numbers = [str(i) for i in range(12)]
    for guess, expected in ((GUESSES[0], numbers), (GUESSES[1], numbers), (GUESSES[2], sorted(numbers))):
        model = guessed((f"name {i}" for i in range(12)), guess)
        adopt_classes(model, sorted(numbers))
        assert model.classes == expected


@pytest.mark.parametrize(
    "theirs, adopted", [("ABc", True), ("cBA", False), ("Acx", False), ("ABC", True), ("AB", False)]
)
def test_names_that_stand_where_the_guess_has_them_speak_for_the_order(theirs, adopted):
    """As of ImageNet's full names, a few of which are one word alone."""
    model = guessed("abc")
    adopt_classes(model, list(theirs))
    assert model.classes == list(theirs if adopted else "abc")
    assert ("tested on" in model.provenance["taken_for"]["classes_from"]) is adopted


def test_training_starts_from_a_checkpoint(checkpoint, tmp_path):
    """What the file's network is, it stays: widths of no named network among it."""
    run = rk.train("digits", weights=checkpoint, epochs=1, img_size=16, out=tmp_path / "run")
    assert run.model.network.spec.widths == (8, 16, 32) and len(run.model.classes) == 10
    assert json.loads((run.folder / "preprocessing.json").read_text())["channels"] == "rgb"


@pytest.mark.parametrize(
    ("left", "table"),
    [
        ("layer1.0.ca.fc1.weight", TORCHVISION),  # CBAM
        ("layer1.0.alpha", CIFAR),
        ("layer2.0.aa.filt", CIFAR),  # anti-aliased strides, in names of which timm's table has the feature
        ("maxpool.1.filt", TORCHVISION),
    ],
)
def test_a_part_that_changes_the_function_is_no_left_over(net, left, table):
    tensors = in_their_names(net, table)
    with pytest.raises(ResnetkitError, match=left):
        recognise(tensors | {left: torch.ones(1)})
    counted = recognise(tensors | {"layer1.0.total_ops": torch.ones(1), "projector.0.weight": torch.ones(4, 4)})
    assert "projector" in " ".join(counted.notes)


def test_a_backbone_without_a_head_gets_one(net, tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_file({k: v for k, v in in_their_names(net).items() if "linear" not in k}, path)
    start = rk.load(path)
    other = rk.build("resnet20_cifar", 7, **NETWORK)
    assert transfer(other, start) == ["a new head for 7 classes where the weights have none"]
    assert torch.equal(other.stem.convs.conv1.weight, net.stem.convs.conv1.weight)


def test_bands(tmp_path):
    net = randomise(rk.build("resnet20_cifar", in_channels=5, **NETWORK)).eval()
    path = tmp_path / "bands.safetensors"
    save_file(in_their_names(net), path)
    assert rk.load(path).preprocessing.channels == "5"
    assert rk.load(path, "mean=0.1,0.2,0.3,0.4,0.5,std=0.2").preprocessing.mean[4] == 0.5
    with pytest.raises(ResnetkitError, match="is of pictures"):
        rk.load(path, "imagenet")


def test_our_own_file_under_another_name(net, tmp_path):
    rk.Model(net, CIFAR10, Preprocessing(size=(32, 32), framing="squash")).save(tmp_path / "own.safetensors")
    other = (tmp_path / "own.safetensors").rename(tmp_path / "own.bin")
    assert not is_foreign(other) and "model file of resnet20_cifar" in rk.load(other).report


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ({"padding": "same"}, {}),
        ({"norm_eps": 1e-3}, {}),
        ({"activation": "silu"}, {}),
        ({}, {"strides": (1, 1, 2)}),
        ({"shortcut": "none"}, {}),
        ({"zero_pad": "end"}, {}),
    ],
)
def test_weights_of_another_function_are_refused(tmp_path, told, asked):
    """All tensors have the same shapes."""
    path = tmp_path / "own.safetensors"
    own = rk.build("resnet20_cifar", **NETWORK | told)
    rk.Model(own, CIFAR10, Preprocessing(size=(32, 32), framing="squash")).save(path)
    (field,) = told or asked
    with pytest.raises(ModelFileRefused, match=f"{field}="):
        rk.build("resnet20_cifar", weights=path, **NETWORK | asked)
    assert rk.build("resnet20_cifar", weights=path, drop_path_rate=0.0, **NETWORK | told)


def test_what_a_file_does_not_tell_is_the_callers_to_say(checkpoint):
    """And a backbone is dilated by who builds it."""
    choices = {"padding": "same", "norm_eps": 1e-3, "norm": "frozen", "output_stride": 2}
    assert rk.build("resnet20_cifar", weights=checkpoint, **NETWORK | choices).spec.padding == "same"


def test_two_are_compared_with_the_pixels_that_are_said(checkpoint, tmp_path, monkeypatch):
    """The flag goes to the foreign one of two; our own has its pixels in its file."""
    model, own, said = rk.load(checkpoint, "unit"), tmp_path / "own.safetensors", []
    model.classes = [str(digit) for digit in range(10)]
    model.save(own)
    monkeypatch.setattr("resnetkit.evaluation.compare.opened", lambda s, p: said.append(p) or rk.load(s, p))
    same = rk.compare(own, checkpoint, "digits", preprocessing="unit")
    assert said == [None, "unit"] and same["only_first_right"] == same["only_second_right"] == 0
    with pytest.raises(ModelFileRefused, match="its preprocessing is in the file"):
        rk.compare(own, own, "digits", preprocessing="unit")


def test_names_of_classes():
    assert len(CIFAR10) == len(set(CIFAR10)) == 10
    assert len(CIFAR100) == len(set(CIFAR100)) == 100 and sorted(CIFAR100) == CIFAR100
    names = imagenet()
    assert len(names) == len(set(names)) == 1000 and (names[0], names[281], names[999]) == (
        "tench",
        "tabby",
        "toilet tissue",
    )
