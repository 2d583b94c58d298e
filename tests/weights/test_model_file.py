"""The model file: what goes in comes out, the first one ever written still loads, and what is not one is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import resnetkit as rk
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused
from resnetkit.weights.files import KEY, Model
from tests.conftest import randomise
from tests.golden.family import wave

GOLDEN = Path(__file__).parents[1] / "golden"


def small_model() -> Model:
    net = randomise(rk.build("resnet8_cifar", 3, in_channels=1, widths=(4, 8, 8), stem_width=4, drop_path_rate=0.1))
    preprocessing = Preprocessing(size=(8, 8), framing="squash", channels="grey", mean=(0.3,), std=(0.4,))
    return Model(net, ["a", "b", "ü"], preprocessing, {"top1": 0.5}, {"data": "made up"})


def test_round_trip(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.safetensors")
    again = rk.load(tmp_path / "m.safetensors")
    assert again.network.spec == model.network.spec
    assert again.classes == model.classes and again.preprocessing == model.preprocessing
    assert again.metrics == model.metrics and again.provenance == model.provenance
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.network.eval()(x), again.network(x))
    assert "resnet8_cifar" in again.report


def test_what_would_not_load_is_not_written(tmp_path):
    path, net = tmp_path / "m.safetensors", rk.build("resnet8_cifar", 3)
    pixels = rk.Preprocessing(size=(8, 8), framing="squash")
    rk.Model(net, ["a", "b", "c"], pixels).save(str(path))
    before = path.read_bytes()
    with pytest.raises(rk.ResnetkitError, match="2 class names for 3 outputs"):
        rk.Model(net, ["a", "b"], pixels).save(path)
    with pytest.raises(rk.ResnetkitError, match="takes 3 channels, and its preprocessing gives 1"):
        rk.Model(net, ["a", "b", "c"], small_model().preprocessing).save(path)
    for odd, says in (
        (torch.compile(net), "not OptimizedModule; of one that was compiled"),
        (torch.nn.Linear(1, 3), "holds a network of rk.build"),
    ):
        with pytest.raises(rk.ResnetkitError, match=says):
            rk.Model(odd, ["a", "b", "c"], pixels).save(path)
    for odd, says in (
        ({"metrics": {"top1": torch.ones(1)}}, "its record is no JSON: Object of type Tensor"),
        ({"provenance": {"images": 500}}, "images in its record is 500, no object"),
    ):
        with pytest.raises(rk.ResnetkitError, match=says):
            rk.Model(net, ["a", "b", "c"], pixels, **odd).save(path)
    with pytest.raises(rk.ResnetkitError, match="preprocessing of a model is an rk.Preprocessing, not 'imagenet'"):
        rk.Model(net, ["a", "b", "c"], "imagenet").save(path)
    with torch.device("meta"), pytest.raises(rk.ResnetkitError, match="not saved: .* no data"):
        rk.Model(rk.build("resnet8_cifar", 3), ["a", "b", "c"], pixels).save(path)
    assert path.read_bytes() == before and rk.load(path).classes == ["a", "b", "c"]
    assert rk.load(path).network.image_size == (8, 8)
    net.head.classifier = torch.nn.Sequential(net.head.classifier)
    with pytest.raises(rk.ResnetkitError, match="head.classifier.weight is missing"):
        rk.Model(net, ["a", "b", "c"], pixels).save(path)
    assert path.read_bytes() == before


def test_build_takes_weights_from_a_model_file(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.safetensors")
    choices = {"widths": (4, 8, 8), "stem_width": 4}
    net = rk.build("resnet8_cifar", 3, in_channels=1, weights=tmp_path / "m.safetensors", **choices)
    assert torch.equal(net.head.classifier.weight, model.network.head.classifier.weight)
    with pytest.raises(ModelFileRefused, match=r"stem.convs.conv1.weight is \(4, 1, 3, 3\), not \(8, 1, 3, 3\)"):
        rk.build("resnet8_cifar", 4, in_channels=1, weights=tmp_path / "m.safetensors", widths=(8, 8, 8), stem_width=8)


def test_build_makes_a_new_head_for_another_number_of_classes_that_is_given(shared):
    file = shared / "checkpoints/resnet20-12fca82f.th"
    trained = rk.build("resnet20_cifar", weights=file).eval()
    x = torch.randn(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="a new head for 5 classes in place of 10, which is to be trained") as warned:
        other = rk.build("resnet20_cifar", 5, weights=file).eval()
    assert warned[0].filename == __file__
    backbone = rk.build("resnet20_cifar", num_classes=0, weights=file).eval()
    with pytest.raises(ModelFileRefused, match=r"here in_channels=1; build it with 3 .*: x.expand\(-1, 3, -1, -1\)$"):
        rk.build("resnet20_cifar", in_channels=1, weights=file)
    with torch.no_grad():
        assert torch.equal(trained.features(x)[-1], other.features(x)[-1]) and other(x).shape == (2, 5)
        torch.testing.assert_close(trained.head.classifier(backbone(x)), trained(x))


@pytest.mark.parametrize(
    ("name", "choices", "says"),
    [
        (
            "resnet8_cifar",
            {"in_channels": 1},
            "it has 3 classes, and resnet8_cifar 10 where nothing is said; give num_",
        ),
        (
            "resnet8_cifar",
            {"num_classes": 5},
            "it has in_channels=1, and here in_channels=3; build it with 1 and bring",
        ),
    ],
)
def test_weights_of_other_classes_or_channels_are_refused_with_the_cure(tmp_path, name, choices, says):
    small_model().save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileRefused, match=says):
        rk.build(name, weights=tmp_path / "m.safetensors", widths=(4, 8, 8), stem_width=4, **choices)


def test_the_first_release_still_loads():
    """model_schema1.safetensors was written by the first version that wrote model files; it never changes."""
    model = rk.load(GOLDEN / "model_schema1.safetensors")
    expected = json.loads((GOLDEN / "model_schema1.json").read_text())
    assert model.classes == expected["classes"]
    assert model.preprocessing == Preprocessing.from_dict(expected["preprocessing"])
    with torch.no_grad():
        logits = model.network(wave(2 * 64, 0.0).float().reshape(2, 1, 8, 8))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=1e-5, atol=1e-6)


def edited(tmp_path, edit_record=None, edit_tensors=None):
    small_model().save(tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        record = json.loads(file.metadata()[KEY])
    if edit_record:
        edit_record(record)
    if edit_tensors:
        edit_tensors(tensors)
    save_file(tensors, tmp_path / "m.safetensors", {KEY: json.dumps(record)})
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize(
    ("edit_record", "edit_tensors", "says"),
    [
        (lambda r: r.update(schema=3), None, "schema 3; this version reads 1, 2: update resnetkit"),
        (lambda r: r.update(schema=2), None, "task 'classification' is none that schema 2 has"),
        (lambda r: r.update(task="detection"), None, "task 'detection' is none that schema 1 has"),
        (lambda r: r.update(task="multilabel"), None, "task 'multilabel' is none that schema 1 has"),
        (
            lambda r: r.update(schema=2, task="multilabel", calibration={"thresholds": [0.5]}),
            None,
            "1 thresholds for 3 classes",
        ),
        (lambda r: r.pop("classes"), None, "its record lacks 'classes'"),
        (lambda r: r["classes"].pop(), None, "2 class names for 3 outputs"),
        (lambda r: r["spec"].update(norm="layer"), None, "norm='layer' is impossible"),
        (lambda r: r["spec"].update(shiny=1), None, "shiny"),
        (lambda r: r["preprocessing"].update(std=[0.0]), None, "std must be above 0"),
        (
            lambda r: r["preprocessing"].update(mean=[0.3] * 3, std=[0.4] * 3, channels="rgb"),
            None,
            "takes 1 channels, and",
        ),
        (lambda r: r["spec"].update(depths=[10**9, 1, 1]), None, "its record has 1000000002 blocks, and the file"),
        (lambda r: r.update(metrics=[0.5]), None, "metrics in its record is [0.5], no object"),
        (lambda r: r.update(provenance="me"), None, "provenance in its record is 'me', no object"),
        (lambda r: r["provenance"].update(recipe=None), None, "recipe in its record is None, no object"),
        (None, lambda t: t.pop("head.classifier.bias"), "head.classifier.bias is missing"),
        (None, lambda t: t.update(extra=torch.zeros(1)), "extra is unknown"),
        (None, lambda t: t.update({"head.classifier.bias": torch.zeros(4)}), "head.classifier.bias is (4,), not (3,)"),
        (
            None,
            lambda t: t.update({"head.classifier.bias": torch.ones(3, dtype=torch.int8)}),
            "bias is int8, no weights",
        ),
        (None, lambda t: t.update({"head.classifier.bias": torch.ones(3) * 1j}), "bias is complex64, no weights"),
    ],
)
def test_what_does_not_agree_is_refused(tmp_path, edit_record, edit_tensors, says):
    with pytest.raises(ModelFileRefused) as error:
        rk.load(edited(tmp_path, edit_record, edit_tensors))
    assert says in str(error.value)
    assert error.value.exit_code == 4


def test_weights_in_half_precision_are_read_as_any_other(tmp_path):
    halved = edited(tmp_path, None, lambda t: t.update({n: v.half() for n, v in t.items() if v.is_floating_point()}))
    model = rk.load(halved)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    rk.Predictor(model)(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("content", [b"", b"x" * 100, (2**62).to_bytes(8, "little") + b"{}", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelFileRefused, match="not a safetensors file"):
        rk.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("says", [(28, "No space left on device"), ("100 requested and 3 written",)])  # NumPy's
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, says):
    path = tmp_path / "m.safetensors"
    small_model().save(path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(*says)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(rk.ResnetkitError, match=f"not saved: {says[-1]}") as error:
        small_model().save(path)
    assert error.value.exit_code == 5
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_path_that_cannot_be_is_not_a_disk_that_gave_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(rk.ResnetkitError, match="not saved: File exists$") as error:
        small_model().save(tmp_path / "file" / "m.safetensors")
    assert error.value.exit_code == 2
