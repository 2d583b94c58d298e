"""The catalogue's records are usable, and say what the files at hand say."""

from itertools import groupby

import pytest

import resnetkit as rk
from resnetkit.architecture.variants import spec
from resnetkit.benchmark.job import make_job
from resnetkit.data.datasets import open_dataset
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.weights import load
from resnetkit.weights.catalogue import by_hash, by_id, catalogue, find
from resnetkit.weights.classes import CIFAR10, class_names
from resnetkit.weights.download import file_sha256


def test_every_record_builds_and_decodes():
    assert len(catalogue()) > 100 and len({entry.id for entry in catalogue()}) == len(catalogue())
    for entry in catalogue():
        spec(entry.variant, **entry.choices)
        Preprocessing.from_dict(entry.preprocessing)
        assert entry.url or entry.hf_hub_id or entry.sha256


def test_published_figures():
    """pytorch.org/vision/stable/models.html, table of all available classification weights."""
    figures = {entry.id: (entry.top1, entry.top5, entry.sha256) for entry in catalogue()}
    assert figures["resnet18.imagenet1k_v1"] == (0.69758, 0.89078, "f37072fd")
    assert figures["resnet50.imagenet1k_v2"] == (0.80858, 0.95434, "11ad3fa6")
    assert figures["resnet50.a1_in1k"] == (None, None, "14fe96d1")  # timm states none


def test_without_huggingface_hub_the_publishers_own_address_does(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(load, "fetch_url", lambda *address: asked.append(address) or tmp_path)
    monkeypatch.setattr(load, "fetch", lambda place: asked.append(place) or tmp_path)
    load.locate("resnet18.a1_in1k")
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    load.locate("resnet18.a1_in1k")
    entry = by_id("resnet18.a1_in1k")
    assert asked == ["hf:timm/resnet18.a1_in1k", (entry.url, entry.sha256)]


def test_find_by_our_name_and_the_publishers():
    assert find("resnet50", "IMAGENET1K_V2").url.endswith("resnet50-11ad3fa6.pth")
    assert find("preact_resnet50", "a1h_in1k") is find("resnetv2_50", "a1h_in1k")
    assert find("resnext101_32x4d", "gluon_in1k").choices == {"cardinality": 32, "base_width": 4}
    assert find("resnet50", "a1h_in1k").choices == {}
    assert find("resnet50", "resnet50.a1_in1k") is find("resnet50", "a1_in1k")
    with pytest.raises(
        ResnetkitError, match="no file is called 'a1_in2k', nor published weights of resnet50; did you mean a1_in1k?"
    ):
        find("resnet50", "a1_in2k")
    with pytest.raises(ResnetkitError, match="`resnet models --weights` lists all"):
        find("plain20_cifar", "a1")


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("resnet26", r"resnet50 with depths=\(2, 2, 2, 2\), and its published weights, resnet26.bt_in1k"),
        ("resnet50_gn", r"resnet50 with norm='group', and its published weights, resnet50_gn.a1h_in1k"),
        ("resnetv2_50", r"preact_resnet50, and its published weights, preact_resnet50.a1h_in1k"),
    ],
)
def test_a_publishers_name_is_refused_with_ours(name, here):
    refusal = f"no network is called '{name}' here; it is {here}"
    with pytest.raises(ResnetkitError, match=refusal):
        rk.build(name, weights="a1h_in1k")
    with pytest.raises(ResnetkitError, match=refusal):
        rk.train("digits", model=name)
    with pytest.raises(ResnetkitError, match=refusal):
        make_job("step", name)


def test_by_hash():
    assert by_hash("f37072fd" + "0" * 56).id == "resnet18.imagenet1k_v1"
    assert by_hash("0" * 64) is None


@pytest.mark.parametrize(
    ("file", "id", "top1"),
    [
        ("resnet20-12fca82f.th", "resnet20_cifar.akamaster_cifar10", 0.9173),
        ("resnet56-4bfd9763.th", "resnet56_cifar.akamaster_cifar10", 0.9339),
        ("mlperf_tiny_resnet8.h5", "resnet8_cifar.mlperf_tiny_cifar10", 0.8719),
    ],
)
def test_files_at_hand(shared, tmp_path, file, id, top1):
    digest = file_sha256(shared / "checkpoints" / file)
    assert (by_hash(digest).id, by_hash(digest).top1) == (id, top1)
    content = bytearray((shared / "checkpoints" / file).read_bytes())
    content[-1] ^= 1
    (tmp_path / file).write_bytes(content)
    assert by_hash(file_sha256(tmp_path / file)) is None


def test_class_names(shared):
    names = class_names(1000, "7x7")
    assert (len(set(names)), names[0], names[207], names[999]) == (1000, "tench", "golden retriever", "toilet tissue")
    assert class_names(10, "3x3") == CIFAR10 == open_dataset(shared / "data/cifar10").classes
    hundred = class_names(100, "3x3")
    assert len(set(hundred)) == 100 and [key for key, _ in groupby(sorted(hundred))] == hundred
    assert class_names(10, "7x7") is None and class_names(37, "3x3") is None
