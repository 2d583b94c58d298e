"""Sizes and costs against the published ones, and against torch's own counter."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.summary import complexity
from resnetkit.architecture.variants import spec
from tests.golden import family

GOLDEN = json.loads(family.FILE.read_text())

PARAMETERS = {
    "resnet18": 11_689_512,  # the ImageNet rows: torchvision's and timm's documentation
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet200": 64_673_832,
    "resnet50c": 25_576_264,
    "resnet50d": 25_576_264,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "seresnet50": 28_088_024,
    "preact_resnet50": 25_549_352,
    "resnet20_cifar": 269_722,  # He et al. 2015, table 6, to the parameter: the published checkpoints
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet1202_cifar": 19_421_274,
    "preact_resnet164_cifar": 1_703_258,
    "wide_resnet28_10_cifar": 36_479_194,
    "wide_resnet16_8_cifar": 10_961_370,
    "resnext29_8x64d_cifar": 34_426_698,
}
GIGA_MACS = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801, "resnet152": 11.514}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published(name):
    with torch.device("meta"):
        net = rk.build(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", GIGA_MACS)
def test_macs_are_the_published(name):
    assert round(complexity(ResNet(spec(name)))["macs"] / 1e9, 3) == GIGA_MACS[name]


def test_stride_in_the_1x1_costs_less_and_sees_more():
    facts = complexity(ResNet(spec("resnet50", stride_in_1x1=True)))
    assert round(facts["macs"] / 1e9, 3) == 3.858
    assert facts["receptive_field"] == 483
    assert complexity(ResNet(spec("resnet50")))["receptive_field"] == 427  # Araujo et al. 2019, table 1


def test_activations_are_the_published():
    """ResNet-50 writes 11.1 M activations (Radosavovic et al. 2020, table 2)."""
    assert round(complexity(ResNet(spec("resnet50")))["activation_bytes"] / 4e6, 1) == 11.1


@pytest.mark.parametrize("name", [n for n in family.NAMES if "1202" not in n and "1001" not in n])
def test_macs_agree_with_torchs_counter(name):
    with torch.device("meta"):
        net = rk.build(name).eval()
        x = torch.empty(1, 3, *net.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert complexity(net)["macs"] * 2 == counter.get_total_flops()


def test_the_notebooks_network():
    net = rk.build_resnet((224, 224, 3), 10)
    trainable = sum(p.numel() for p in net.parameters())
    statistics = sum(b.numel() for b in net.buffers() if b.is_floating_point())
    assert (trainable, trainable + statistics) == (21_298_314, 21_315_338)  # Keras's summary of the notebook
    macs = complexity(net)["macs"]
    assert round(macs / 1e9, 1) == 66.8
    assert round(macs / complexity(ResNet(spec("resnet34")))["macs"]) == 18
    mended = rk.build_resnet((224, 224, 3), 10, strides=(1, 2, 2, 2))
    assert round(complexity(mended)["macs"] / 1e9, 2) == 3.66


@pytest.mark.parametrize("name", family.NAMES)
def test_golden_sizes(name):
    facts = complexity(ResNet(spec(name, 10 if "notebook" in name else None)))
    for key in ("parameters", "macs", "activation_bytes", "receptive_field", "output_stride"):
        assert facts[key] == GOLDEN[name][key], key


@pytest.mark.parametrize("name", family.NAMES)
def test_golden_features_and_feature_info(name):
    with torch.device("meta"):
        net = rk.build(name).eval()
        maps = net.features(torch.empty(1, 3, *net.image_size))
    assert [list(x.shape[1:]) for x in maps] == GOLDEN[name]["features"]
    for x, info in zip(maps, net.feature_info, strict=True):
        assert x.shape[1] == info.channels
        assert x.shape[2] == -(-net.image_size[0] // info.stride)
        assert info.name in dict(net.named_modules())


@pytest.mark.parametrize("name", family.NAMES)
def test_golden_output(name):
    net = ResNet(spec(name, 10 if "notebook" in name else None))
    assert family.checksum(net) == pytest.approx(GOLDEN[name]["checksum"], rel=1e-6, abs=1e-9)
