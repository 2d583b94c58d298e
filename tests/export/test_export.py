"""A model in other libraries' formats: what is written, what is refused, and that nothing is lost or overwritten."""

import json
import subprocess
import sys
from dataclasses import replace
from errno import ENOSPC

import pytest
import torch
from huggingface_hub import ModelCard

import resnetkit as rk
from resnetkit.cli.main import app
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError, ResourceExhausted
from resnetkit.export import hub, keras_format, to_huggingface, to_timm, to_torchvision
from resnetkit.weights import from_huggingface, from_timm
from resnetkit.weights.files import Model
from tests.conftest import randomise_near_epsilon

TARGETS = {"torchvision": to_torchvision, "timm": to_timm, "huggingface": to_huggingface}
PIXELS = Preprocessing(size=(64, 64), resize=73, interpolation="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
LEARNT_ELSEWHERE = {"name": "", "drop_path_rate": 0.0, "zero_init_residual": False, "norm_momentum": 0.1}
LEARNT_ELSEWHERE |= {"norm": "batch", "output_stride": None}


def model_of(name, num_classes=5, pixels=PIXELS, **choices):
    network = randomise_near_epsilon(rk.build(name, num_classes, **choices)).eval()
    for counter in (b for n, b in network.named_buffers() if n.endswith("num_batches_tracked")):
        counter.fill_(7)
    metrics = {"split": "test", "n": 1200, "top1": 0.91, "top1_interval": [0.89, 0.925], "loss": 0.31, "ece": 0.02}
    provenance = {"data": "/home/someone/birds", "images": {"train": 5000, "test": 1200}, "steps": 400}
    provenance["recipe"] = {"lr": 0.1, "weights": "/home/someone/runs/first"}
    return Model(network, [f"bird: {i} “ü”" for i in range(num_classes)], pixels, metrics, provenance)


THIN = {"depths": (1, 2, 1, 1)}
HELD = [
    ("torchvision", "resnet18", {}),
    ("torchvision", "resnet50", {"norm": "frozen", "drop_path_rate": 0.1}),
    ("torchvision", "resnext50_32x4d", THIN),
    ("torchvision", "wide_resnet50_2", THIN),
    ("torchvision", "resnet50", {"output_stride": 8}),
    ("timm", "resnet18d", {"in_channels": 1, "pixels": replace(PIXELS, channels="grey", mean=(0.5,), std=(0.2,))}),
    ("timm", "resnet50", {"activation": "silu", "widths": (32, 64, 96, 128)}),
    ("timm", "seresnet50", THIN | {"widths": (48, 64, 80, 100)}),
    ("timm", "preact_resnet18", {"widths": (64,) * 4}),
    ("timm", "ecaresnet50d", THIN),
    ("timm", "resnet50", {"output_stride": 16}),
    ("timm", "preact_resnet50", THIN),
    ("timm", "preact_resnet18", {"stem": "deep", "shortcut": "pooled"}),
    ("timm", "preact_resnet50", {"num_classes": 0}),
    ("huggingface", "resnet18", {"pixels": replace(PIXELS, framing="squash", resize=None)}),
    ("huggingface", "resnet50", {"stride_in_1x1": True}),
    ("huggingface", "resnet50", {"depths": (1, 2), "widths": (16, 32), "strides": (2, 2), "in_channels": 5}),
    ("huggingface", "resnet50", {"num_classes": 0}),
]


@pytest.mark.parametrize(("to", "name", "choices"), HELD, ids=lambda value: str(value))
def test_a_round_trip_returns_the_same_tensors_and_network(to, name, choices, tmp_path):
    model = model_of(name, **choices)
    found = rk.export(model, to=to, out=tmp_path / "out")
    own, read = model.network.state_dict(), TARGETS[to].read(tmp_path / "out")
    assert found["tensors_equal"] == len(own) == len(read.tensors)
    assert all(own[key].numpy().tobytes() == read.tensors[key].numpy().tobytes() for key in own)
    told_apart = {} if to == "torchvision" else {"output_stride": model.network.spec.output_stride}
    assert replace(read.spec, **LEARNT_ELSEWHERE | told_apart) == replace(
        model.network.spec, **LEARNT_ELSEWHERE | told_apart
    )


def test_pixels_that_a_foreign_file_does_not_tell_are_the_users(tmp_path):
    rk.export(model_of("resnet18", depths=(1,) * 4), to="torchvision", out=tmp_path / "theirs.pth")
    told = "mean=0.1,0.2,0.3,std=0.25,size=96,crop=0.75"
    rk.export(tmp_path / "theirs.pth", to="timm", out=tmp_path / "timm", preprocessing=told)
    config = json.loads((tmp_path / "timm/config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["std"]) == ([0.1, 0.2, 0.3], [0.25] * 3)
    assert (config["input_size"], config["crop_pct"]) == ([3, 96, 96], 0.75)


@pytest.mark.parametrize(("to", "reader"), [("timm", from_timm), ("huggingface", from_huggingface)])
@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS,
        replace(PIXELS, framing="squash", resize=None, interpolation="bilinear"),
        *(replace(PIXELS, size=(side, side), resize=resize) for side, resize in ((224, 256), (225, 231), (49, 337))),
    ],
)
def test_labels_and_pixels_come_back(to, reader, pixels, tmp_path):
    model = model_of("resnet18", pixels=pixels, depths=(1, 1, 1, 1))
    rk.export(model, to=to, out=tmp_path / "out")
    _, config = hub.read_folder(tmp_path / "out")
    assert reader.classes(config) == model.classes
    assert reader.preprocessing(config, tmp_path / "out") == pixels


@pytest.mark.parametrize(
    ("to", "name", "choices", "feature"),
    [
        *((to, "resnet50", {"norm_eps": 1.001e-5}, "norm_eps=1.001e-05; its networks have 1e-05") for to in TARGETS),
        *((to, "resnet50", {"padding": "same"}, "padding='same'") for to in TARGETS),
        *((to, "resnet50", {"conv_bias": True}, "conv_bias=True") for to in TARGETS),
        *((to, "resnet50", {"norm": "group"}, "norm='group'; its networks have batch or frozen") for to in TARGETS),
        *((to, "resnet20_cifar", {}, "stem='3x3'") for to in TARGETS),
        *((to, "resnet34", {"shortcut": "none"}, "shortcut='none'") for to in TARGETS),
        *((to, "resnet34", {"shortcut": "zero_pad"}, "shortcut='zero_pad'") for to in TARGETS),
        *((to, "resnet50", {"shortcut_norm": False}, "shortcut_norm=False") for to in TARGETS),
        ("torchvision", "resnet50", {"activation": "gelu"}, "activation='gelu'"),
        ("torchvision", "resnet50d", {}, "stem='deep'"),
        ("torchvision", "seresnet50", {}, "attention='se'"),
        ("torchvision", "resnet50", {"stride_in_1x1": True}, "stride_in_1x1=True"),
        ("torchvision", "resnet50", {"num_classes": 0}, "num_classes=0"),
        ("torchvision", "resnet34", {"output_stride": 8}, "its basic block has no dilation"),
        ("timm", "resnet50", {"stride_in_1x1": True}, "stride_in_1x1=True"),
        ("timm", "resnet50d", {"output_stride": 8}, "output_stride=8"),
        ("timm", "resnet50", {"stem_width": 32}, "stem_width=32"),
        ("timm", "preact_resnet50", {"base_width": 128}, "base_width=128"),
        ("timm", "preact_resnet50", {"attention": "se"}, "attention='se'"),
        ("timm", "preact_resnet50", {"widths": (16, 32, 64, 128)}, "begin with a projection"),
        ("timm", "resnet18d", {"stem_width": 33}, "stem_width=33"),
        ("timm", "preact_resnet18", {"widths": (64,) * 4, "output_stride": 8}, "output_stride=8; its pre-activation"),
        ("huggingface", "resnet50", {"activation": "silu"}, "activation='silu'"),
        ("huggingface", "resnext50_32x4d", {}, "cardinality=32"),
        ("huggingface", "wide_resnet50_2", {}, "base_width=128"),
        ("huggingface", "ecaresnet50d", {"stem": "7x7", "shortcut": "projection"}, "attention='eca'"),
        ("huggingface", "preact_resnet50", {}, "preactivation=True"),
        ("huggingface", "resnet50", {"strides": (1, 2, 1, 2)}, "strides=(1, 2, 1, 2)"),
        ("huggingface", "resnet50", {"output_stride": 16}, "output_stride=16"),
        *((to, "resnet18", {"depths": (2, 1, 1, 1), "reversible": True}, "reversible=True") for to in TARGETS),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(to, name, choices, feature, tmp_path):
    model = model_of(name, **{"depths": (1, 1, 1, 1)} | choices if "cifar" not in name else choices)
    with pytest.raises(ResnetkitError) as refusal:
        rk.export(model, to=to, out=tmp_path / "out")
    assert feature in str(refusal.value) and name in str(refusal.value) and "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["timm", "huggingface"])
def test_a_framing_that_no_processor_has_is_refused(to, tmp_path):
    model = model_of("resnet18", pixels=replace(PIXELS, framing="letterbox", resize=None))
    with pytest.raises(ResnetkitError, match="framing='letterbox'"):
        rk.export(model, to=to, out=tmp_path / "out")


def test_images_that_no_processor_takes_are_refused(tmp_path):
    bands = replace(PIXELS, channels="5", mean=(0.5,) * 5, std=(0.2,) * 5)
    with pytest.raises(ResnetkitError, match="transformers cannot hold images of 5 bands"):
        rk.export(model_of("resnet18", in_channels=5, pixels=bands), to="huggingface", out=tmp_path / "out")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ResnetkitError, match="choose another --out"):
        rk.export(model_of("resnet18"), to="torchvision", out=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "save", full)
    with pytest.raises(ResourceExhausted, match="No space left on device; free some space"):
        rk.export(model_of("resnet18"), to="timm", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_torch_leaves_nothing(tmp_path):
    """Where writing itself fails, which torch tells as an error of its own: here past a limit on the size of files."""
    model_of("resnet18").save(tmp_path / "model.safetensors")
    limited = "import resource, signal; from resnetkit.cli.main import main; "
    limited += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); main()"
    command = [sys.executable, "-c", limited, "export", str(tmp_path), "--to", "torchvision"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 5 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list((tmp_path / "exports").glob("*"))


@pytest.mark.parametrize("to", TARGETS)
def test_a_file_that_reads_back_otherwise_is_not_left(to, tmp_path, monkeypatch):
    def spoilt(*arguments):
        found = read(*arguments)
        found.tensors["stages.0.0.branch.conv1.weight"].view(torch.int32)[0, 0, 0, 0] ^= 1  # the last bit
        return found

    read = TARGETS[to].read
    monkeypatch.setattr(TARGETS[to], "read", spoilt)
    with pytest.raises(ModelFileRefused, match=r"1 of \d+ tensors differ: stages.0.0.branch.conv1.weight"):
        rk.export(model_of("resnet18"), to=to, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_card_tells_figures_data_and_the_missing_licence(tmp_path):
    model = model_of("resnet18")
    rk.export(model, to="huggingface", out=tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "transformers" and card.data.license is None
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.91, "birds")
    for text in ("0.8900 to 0.9250", "5,000 in train", "To be filled in by the author", "bird: 4 “ü”", "shorter side"):
        assert text in card.content
    assert "/home/someone" not in card.content


def test_the_command(tmp_path, capsys):
    model = model_of("resnet18")
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(SystemExit) as done:
        app(["export", str(tmp_path), "--to", "timm", "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(tmp_path / "exports" / "timm") and found["tensors_equal"] == 122
    with pytest.raises(ResnetkitError, match="did you mean torchvision"):
        app(["export", str(tmp_path), "--to", "torchvison"], standalone_mode=False)


@pytest.mark.parametrize("first", ["import resnetkit.export.card", "rk.export", ""])
def test_export_is_called_whatever_was_imported_first(first):
    code = (
        f"import resnetkit as rk\n{first}\ntry:\n  rk.export('x', to='y')\nexcept rk.ResnetkitError as e:\n  print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--to y" in out


def test_a_model_of_bands_has_a_card(tmp_path):
    bands = replace(PIXELS, channels="5", mean=(0.5,) * 5, std=(0.2,) * 5)
    rk.export(model_of("resnet18", in_channels=5, pixels=bands), to="timm", out=tmp_path / "out")
    assert "5 bands in 0..1" in (tmp_path / "out/README.md").read_text()


def test_the_card_names_no_folder_of_the_author(tmp_path):
    model = model_of("resnet18")
    images = "64 images of the train part of /home/someone/secret"
    model.provenance["taken_for"] = {"source": "/home/someone/theirs.pth", "probe": {"images": images}}
    rk.export(model, to="timm", out=tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "theirs.pth" in card and "/home/someone" not in card


def test_the_card_tells_the_hubs_repository_whole_and_counts_no_images_that_were_not_counted(tmp_path, monkeypatch):
    model = model_of("resnet18", num_classes=0)
    model.metrics = {"split": "holdout", "top1": 0.9, "epoch": 3}  # of a run's best.safetensors
    rk.export(model, to="timm", out=tmp_path / "theirs" / "abc")
    monkeypatch.setattr("resnetkit.weights.load.fetch", lambda _: tmp_path / "theirs" / "abc")
    taken = rk.load("hf:someone/net")
    assert taken.report.startswith("hf:someone/net@abc: ")
    model.provenance["taken_for"] = taken.provenance["taken_for"]
    rk.export(model, to="timm", out=tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "hf:someone/net@abc" in card.content and "On the holdout part." in card.content
    assert card.data.eval_results is None
    assert "None: a backbone without a classifier." in card.content


def test_where_it_goes_by_default(tmp_path, monkeypatch):
    """Into a run, beside a file or another library's folder, never into the cache of the Hub."""
    monkeypatch.chdir(tmp_path)
    rk.export(model_of("resnet18"), to="timm", out=tmp_path / "theirs")
    assert rk.export(tmp_path / "theirs", to="torchvision")["path"] == str(tmp_path / "theirs-torchvision.pth")
    monkeypatch.setattr("resnetkit.weights.load.fetch", lambda _: tmp_path / "theirs")
    assert rk.export("hf:me/net@main", to="torchvision")["path"] == "net-torchvision.pth"


def test_a_keras_file_is_named_as_keras_opens_it(tmp_path):
    with pytest.raises(ResnetkitError, match=".keras; name it so"):
        rk.export(model_of("resnet18"), to="keras", out=tmp_path / "net.h5")


@pytest.mark.parametrize("target", [*TARGETS.values(), keras_format])
def test_every_format_says_that_it_is_uncalibrated(target):
    model = model_of("resnet18")
    assert "temperature" not in " ".join(target.notes(model))
    model.calibration = replace(model.calibration, temperature=1.5)
    assert "temperature 1.5000 is not in it" in " ".join(target.notes(model))


def test_a_backbone_as_a_keras_file_gives_features():
    backbone = model_of("resnet18", num_classes=0)
    assert "images to pooled features" in keras_format.use(backbone, "x")[1]
    assert not any("classes" in note for note in keras_format.notes(backbone))
