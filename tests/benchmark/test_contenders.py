"""Our contenders run what the package runs, and unequal work is noticed."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import resnetkit as rk
from resnetkit.benchmark import ceilings, subject
from resnetkit.benchmark.equal import compare_work
from resnetkit.benchmark.job import make_job
from resnetkit.benchmark.ours import Inference, Loader, Step
from resnetkit.benchmark.ratios import reasons_void
from resnetkit.benchmark.run import shares_of_ceilings
from resnetkit.benchmark.subject import random_images, random_model, write_photos
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from tests.conftest import randomise


def job(kind, **choices):
    return make_job(kind, "resnet8_cifar", **({"img_size": 8, "batch_size": 4} | choices))


def test_a_step_is_that_of_the_loop(monkeypatch):
    steps = []
    monkeypatch.setattr(subject, "train_epoch", lambda state, batches, *_, **__: steps.append(next(batches)[0].shape))
    step = Step()
    facts = step.prepare(job("step", precision="float32").to_dict())
    assert facts["runs"] == "resnet train, float32" and set(facts["start_seconds"]) == {"import", "build", "first"}
    assert step.sample(0)["images"] == 0 and steps[0] == (4, 3, 8, 8)


def test_steps_and_predictions_are_taken():
    for contender, kind in ((Step(), "step"), (Inference(), "inference")):
        contender.prepare(job(kind, precision="float32").to_dict())
        found = contender.sample(0.001)
        assert found["images"] % 4 == 0 and found["images"] > 0 and found["seconds"] >= 0.001


def test_on_a_processor_no_gpu_is_touched(monkeypatch):
    """Its context would count as ours in the start, and its memory as that of the process."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: pytest.fail("initialises CUDA"))
    step = Step()
    step.prepare(job("step", precision="float32").to_dict())
    assert step.sample(0.001)["images"]


def test_a_step_may_be_compiled(compilations):
    facts = Step().prepare(job("step", precision="float32", compile="on").to_dict())
    assert compilations and facts["runs"] == "resnet train, float32, compile on"


def test_the_loader_reads_whole_epochs_and_normalises(tmp_path, monkeypatch):
    """As its peers do, within the time."""
    normalised, normalise = [], Preprocessing.normalise
    monkeypatch.setattr(Preprocessing, "normalise", lambda *a: normalised.append(a[1].dtype) or normalise(*a))
    write_photos(tmp_path / "photos", count=6, size=(40, 50))
    loader = Loader()
    loader.prepare(job("loader", data=tmp_path / "photos", threads=1).to_dict() | {"cache": str(tmp_path / "cache")})
    del normalised[:]
    assert loader.sample(0.001)["images"] % 6 == 0
    assert len(normalised) >= 4 and set(normalised) == {torch.uint8}  # two epochs at least, of two batches each


def test_pixels_are_random_and_the_same_for_all():
    one, other = (random_images(job("step").to_dict())[0] for _ in range(2))
    assert torch.equal(one, other) and 100 < one.float().mean() < 155 and one.float().std() > 50


def exported(folder, spoil=None):
    """What a peer writes, with a weight changed after its logits were computed where `spoil` names one."""
    model, _ = random_model(job("step").to_dict())
    randomise(model.network)
    x = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        np.save(folder / "logits.npy", model.network.eval()(x).numpy())
    np.save(folder / "images.npy", x.numpy())
    if spoil:
        with torch.no_grad():
            model.network.state_dict()[spoil][0].mul_(1.05)
    model.save(folder / "weights.safetensors")
    names = {"weights": "safetensors", "images": "npy", "logits": "npy"}
    return {name: str(folder / f"{name}.{end}") for name, end in names.items()}


@pytest.mark.parametrize("predicting", [False, True])
def test_equal_work(tmp_path, predicting):
    found = compare_work(exported(tmp_path), rk.build("resnet8_cifar"), predicting=predicting)
    assert found["equal"] and found["macs_ratio"] == 1 and not reasons_void({"low": 1, "high": 1}, 9, {})
    assert compare_work(exported(tmp_path), rk.build("resnet20_cifar"))["macs_ratio"] < 0.5


@pytest.mark.parametrize("predicting", [False, True])
def test_another_weight_is_other_work(tmp_path, predicting):
    spoiled = exported(tmp_path, spoil="stages.1.0.branch.conv1.weight")
    found = compare_work(spoiled, rk.build("resnet8_cifar"), predicting=predicting)
    assert not found["equal"] and found["error"] > 1e-4
    (reason,) = reasons_void({"low": 1, "high": 1}, 9, {"peer": found})
    assert reason.startswith("peer computes something else")


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet18", "resnet50d"])
def test_share_of_the_ceiling_by_what_torch_counts(name):
    """The images are not asked for a gradient, as in training: that is 3 passes less the first convolution."""
    net, images = rk.build(name), torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        net(images)
    with FlopCounterMode(display=False) as both:
        net(images).sum().backward()
    ours = {"precision": "float32", "images_per_second": {"median": 1000.0}}
    for kind, counter in (("inference", forward), ("step", both)):
        flops = counter.get_total_flops() / len(images)
        ceilings = {"float32_gflops": 1000 * flops / 1e9 / 0.25, "copy_gb_per_second": 1.0}
        found = shares_of_ceilings(make_job(kind, name, img_size=32), ours, ceilings)
        assert found["share_of_ceiling"] == pytest.approx(0.25)


def test_share_of_a_copy_by_what_timm_counts():
    """11.11 million activations in a ResNet-50 at 224 pixels (timm's results/benchmark-infer-*.csv)."""
    half = {"precision": "bfloat16", "images_per_second": {"median": 1.0}}
    ceilings = {"bfloat16_gflops": 1.0, "copy_gb_per_second": 2 * 2 * 11.11e6 / 1e9}
    for kind, passes in (("inference", 1), ("step", 3)):
        found = shares_of_ceilings(make_job(kind, "resnet50"), half, ceilings)
        assert found["share_of_copy"] == pytest.approx(passes, rel=2e-3)


def test_a_gpu_multiplies_float32_as_its_convolutions_do(monkeypatch):
    """Told by a stand-in for the clock; what PyTorch was set to before, it is afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as PyTorch comes
    tf32, random = [], torch.randn
    monkeypatch.setattr(ceilings, "_least", lambda *_: tf32.append(torch.backends.cuda.matmul.allow_tf32) or 1.0)
    monkeypatch.setattr(torch, "randn", lambda *_, device: random(2, 2))
    before = torch.get_float32_matmul_precision()
    for device, multiplied in (("cuda", True), ("cpu", torch.backends.cuda.matmul.allow_tf32)):
        tf32.clear()
        ceilings.products(torch.device(device))
        assert tf32 == [multiplied] * 2 and torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ResnetkitError, match="device 'cuda' is not to be had here"):
        make_job("step", "resnet18", device="cuda")


@pytest.mark.parametrize(
    ("kind", "choices", "says"),
    [
        ("steps", {}, "step, inference"),
        ("step", {"compile": "auto"}, "compile='auto'"),
        ("inference", {"compile": "on"}, "compile=on is for `resnet benchmark step`, and not for inference"),
        ("step", {"compile": "graphs"}, "graphs; give device=cuda, or compile=on"),
        ("step", {"device": "auto"}, "device='auto': a benchmark runs on cpu or cuda"),
        ("step", {"device": "cuda:1"}, "device='cuda:1'"),
        ("step", {"precision": "half"}, "precision 'half' is not known"),
        ("inference", {"precision": "auto"}, "precision 'auto' is not known"),
        ("loader", {"device": "cuda"}, "a loader has no device and no precision"),
        ("loader", {"precision": "bfloat16"}, "a loader has no device and no precision"),
        ("step", {"threads": 10_000}, "cores"),
    ],
)
def test_jobs_that_make_no_sense(kind, choices, says):
    with pytest.raises(ResnetkitError, match=says):
        make_job(kind, "resnet18", **choices)


def test_jobs_of_which_little_is_said():
    assert make_job("memory", "resnet18", precision="auto").precision == "auto"
    assert make_job("step", "resnet18").batch_size == 16 and make_job("inference", "resnet20_cifar").img_size == 32
