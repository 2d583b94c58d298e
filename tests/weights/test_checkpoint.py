"""Anybody's checkpoint is opened: the tensors torch and safetensors see, from the usual wrappings and folders."""

import json
import os
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import resnetkit as rk
from resnetkit import user_cache
from resnetkit.errors import ModelFileRefused, ResourceExhausted
from resnetkit.weights.checkpoint import open_checkpoint
from resnetkit.weights.pickled import read_pickled
from resnetkit.weights.wrappings import chosen
from tests.faults.hostile import state


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )


def test_published_checkpoints(shared):
    """Legacy files of torch 1.x; compared with torch's own reading of them."""
    path = shared / "checkpoints" / "resnet20-12fca82f.th"
    checkpoint = open_checkpoint(path)
    assert same(checkpoint.tensors, torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    assert checkpoint.notes == ["left out beside 'state_dict': best_prec1"]
    with pytest.raises(ModelFileRefused, match="a Keras file"):
        open_checkpoint(shared / "checkpoints" / "mlperf_tiny_resnet8.h5")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save(tmp_path, zipped):
    """Every dtype, empty, scalar, transposed, shared and parameter tensors, and what training leaves beside them."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    tensors = OrderedDict(net.state_dict())
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool):
        tensors[str(dtype)] = torch.ones(3, dtype=dtype)
    tensors["parameter"] = nn.Parameter(torch.randn(2))
    tensors["transposed"] = torch.randn(5, 4).t()
    tensors["view"] = tensors["transposed"][1:3, ::2]
    tensors["scalar"], tensors["empty"] = torch.tensor(2.5), torch.zeros(0, 3)
    beside = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "epoch": 3, "arch": "ré"}
    wrapped = beside | {"state_dict": tensors, "size": torch.Size([3]), "device": torch.device("cpu")}
    torch.save(wrapped, tmp_path / "x.tar", _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(tmp_path / "x.tar")
    assert same(checkpoint.tensors, tensors)
    assert checkpoint.notes == ["left out beside 'state_dict': optimizer, scheduler, epoch, arch, size, device"]


def test_a_full_disk_is_no_fault_of_the_checkpoint(tmp_path, monkeypatch):
    torch.save(rk.build("resnet18").state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr(user_cache, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ResourceExhausted, match=r"reading .*x.pth takes .* GB free; free some space or set TMPDIR"):
        rk.load(tmp_path / "x.pth")


def test_safetensors(tmp_path):
    tensors = state() | {"half": torch.ones(3, dtype=torch.bfloat16), "empty": torch.zeros(0), "b": torch.tensor(True)}
    save_file(tensors, tmp_path / "x.bin", {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path / "x.bin")
    assert same(checkpoint.tensors, load_file(tmp_path / "x.bin"))
    assert checkpoint.metadata == {"format": "pt"} and checkpoint.config == {} and checkpoint.notes == []


def test_folders(tmp_path):
    config = {"model_type": "resnet", "num_labels": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(state(), tmp_path / "pytorch_model.bin")
    assert same(open_checkpoint(tmp_path).tensors, state())
    names = list(state())
    shards = {"a.safetensors": names[:1], "b.safetensors": names[1:]}
    for file, held in shards.items():
        save_file({name: state()[name] for name in held}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(open_checkpoint(tmp_path).tensors, state())
    save_file({"only": torch.ones(1)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["only"] and checkpoint.config == config
    assert open_checkpoint(tmp_path / "a.safetensors").config == config


def test_a_snapshot_of_the_hub_links_to_its_blobs(tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    save_file(state(), blobs / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    assert same(open_checkpoint(snapshot).tensors, state())


def test_another_programs_config_is_left_out(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    save_file(state(), tmp_path / "x.safetensors")
    assert "config.json: not a JSON object" in open_checkpoint(tmp_path / "x.safetensors").notes[0]


def wrappings(*keys: str) -> dict:
    """A tree whose leaves are told apart by their only name."""
    tree: dict = {}
    for key in keys:
        inner = tree
        for name in key.split("."):
            inner = inner.setdefault(name, {})
        inner[key] = "tensor"
    return tree


@pytest.mark.parametrize(
    ("tree", "taken", "notes"),
    [
        (wrappings("state_dict"), ["state_dict"], []),
        (wrappings("model", "ema"), ["ema"], ["took 'ema', the averaged weights, and not 'model'"]),
        (
            wrappings("state_dict", "state_dict_ema"),
            ["state_dict_ema"],
            ["took 'state_dict_ema', the averaged weights, and not 'state_dict'"],
        ),
        (wrappings("student", "teacher"), ["teacher"], ["took 'teacher' and not 'student'"]),
        (wrappings("ema.module", "model"), ["ema", "module"], ["took 'ema', the averaged weights, and not 'model'"]),
        (wrappings("net") | {"queue": "tensor", "acc": 1}, ["net"], ["left out beside 'net': queue, acc"]),
        ({"conv": "tensor", "model": {"lr": 1}}, [], ["left out 'model': no tensor"]),
    ],
)
def test_the_state_dict_is_found(monkeypatch, tree, taken, notes):
    monkeypatch.setattr("resnetkit.weights.wrappings.Declared", str)
    keys, _, found = chosen(tree)
    assert keys == taken and found == notes


def test_averaged_weights_come_out(tmp_path):
    torch.save({"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").tensors["w"] == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (nn.Linear(2, 2), "it wants torch.nn.modules.linear.Linear; if that is a whole network, save its state_dict"),
        ([torch.zeros(1)], "no dict of tensors"),
        ({"epoch": 3}, "no state dict under a known name"),
        ({"state_dict": {3: torch.zeros(1)}}, "has the key 3, which is no name"),
        ({"w": torch.zeros(1).expand(8)}, "declares a tensor"),
        (
            {"w": torch.tensor([float("nan")])},
            "'w' has weights that are NaN or infinite; get a sound copy, or `resnet convert --force` it",
        ),
    ],
)
def test_other_contents_are_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ModelFileRefused) as error:
        open_checkpoint(tmp_path / "x.pt")
    assert says in str(error.value) and error.value.exit_code == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "an image, and no checkpoint; in a command the model comes first"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "an image"),
        (b'model = "resnet18"\n', "no checkpoint; name a file of torch.save"),
        (b"class,path\ncat,1.jpg\n", "no checkpoint"),
        (b"Weights are under the following licence", "no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_called_so(tmp_path, content, says):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelFileRefused, match=f"file: {says}"):
        open_checkpoint(tmp_path / "file")


def test_bad_values_can_be_forced(tmp_path):
    tensors = {"a": torch.tensor([float("inf")]), "bn.moving_variance": torch.tensor([-1.0])}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileRefused, match="'a' has weights that are NaN or infinite, as 1 more"):
        open_checkpoint(tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors", force=True)
    assert same(checkpoint.tensors, tensors)
    assert checkpoint.notes[1] == "forced: 'bn.moving_variance' has a negative variance"


def test_what_a_counter_says_does_not_matter(tmp_path):
    """Of a network in half precision it is infinite after 65,504 steps."""
    tensors = {"bn.num_batches_tracked": torch.tensor(1e6).half(), "bn.weight": torch.ones(2).half()}
    save_file(tensors, tmp_path / "x.safetensors")
    assert same(open_checkpoint(tmp_path / "x.safetensors").tensors, tensors)


def test_what_is_checked_is_what_is_read(tmp_path):
    """A file put in the place of another after it was opened changes nothing."""
    path = tmp_path / "x.pt"
    torch.save(state(), path)
    with open(path, "rb") as file:
        torch.save({"w": torch.zeros(1)}, tmp_path / "y.pt")
        os.replace(tmp_path / "y.pt", path)
        tensors, _ = read_pickled(path, file)
    assert same(tensors, state())
