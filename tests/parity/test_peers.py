"""Logits and features against torchvision and timm, with randomised norms. Run in .venv-peers."""

import pytest
import torch

import resnetkit as rk
from resnetkit.weights import from_timm
from resnetkit.weights.classes import imagenet
from tests.conftest import randomise
from tests.parity.pairing import copy_in_order

pytestmark = pytest.mark.peers

TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2"]
TIMM = {
    "resnet50c": "resnet50c",
    "resnet50d": "resnet50d",
    "resnet50s": "resnet50s",
    "resnet18d": "resnet18d",
    "seresnet50": "seresnet50",
    "ecaresnet50d": "ecaresnet50d",
    "preact_resnet50": "resnetv2_50",
    "resnext50_32x4d": "resnext50_32x4d",
}


def assert_equal_outputs(theirs, ours):
    x = torch.randn(2, 3, 96, 64)
    randomise(theirs).eval()
    copy_in_order(theirs, ours.eval(), x)
    with torch.inference_mode():
        expected, got = theirs(x), ours(x)
    assert (expected - got).abs().max() <= 1e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, torchvision_models):
    assert_equal_outputs(getattr(torchvision_models, name)(weights=None), rk.build(name))


def test_torchvision_dilation(torchvision_models):
    theirs = torchvision_models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    assert_equal_outputs(theirs, rk.build("resnet50", output_stride=8))


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, timm):
    assert_equal_outputs(timm.create_model(TIMM[name], pretrained=False), rk.build(name))


def test_a_fixed_stem_of_timm_pools_over_zeros(timm):
    args = {"stem_type": "fixed"}
    told = from_timm.known({"architecture": "resnetv2_50", "model_args": args})
    ours = rk.build("preact_resnet50", pool_padding=told["pool_padding"])
    assert_equal_outputs(timm.create_model("resnetv2_50", pretrained=False, **args), ours)


@pytest.mark.parametrize("name", ["resnet50d", "preact_resnet50"])
def test_timm_features(name, timm):
    """The same maps as timm's `features_only`, from the stem's on; ours ends with the final norm where there is one."""
    theirs = randomise(timm.create_model(TIMM[name], pretrained=False)).eval()
    ours = rk.build(name).eval()
    x = torch.randn(2, 3, 64, 64)
    copy_in_order(theirs, ours, x)
    expected = theirs.forward_intermediates(x, norm=True, intermediates_only=True)
    with torch.inference_mode():
        got = ours.features(x)
    assert [i["reduction"] for i in theirs.feature_info] == [i.stride for i in ours.feature_info]
    for theirs_map, our_map in list(zip(expected, got, strict=True))[1:]:
        torch.testing.assert_close(our_map, theirs_map, rtol=1e-3, atol=1e-3)


def test_names_of_imagenet_are_torchvisions(torchvision_models):
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    assert imagenet() == list(_IMAGENET_CATEGORIES)
