"""From names and shapes alone: the variant, or the exact set that they cannot separate."""

import random

import pytest
import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec, variants
from resnetkit.errors import ResnetkitError
from resnetkit.weights.identify import by_shapes
from resnetkit.weights.recognise import recognise

PLAIN_TWINS = [
    "plain18",
    "plain_resnext50_32x4d",
    "plain_preact_resnet18",
    "plain20_cifar",
    "plain_wide_resnet16_8_cifar",
]
# What tensors cannot separate: a pool and a zero-pad shortcut have none.
ALIKE = [
    *({f"resnet{depth}c", f"resnet{depth}d"} for depth in (18, 34, 50, 101, 152, 200)),
    *({f"resnet{depth}_cifar", f"plain{depth}_cifar"} for depth in (20, 32, 44, 56, 110, 1202)),
]


def shuffled_tensors(name, **choices):
    with torch.device("meta"):
        tensors = list(ResNet(spec(name, **choices)).state_dict().items())
    random.Random(0).shuffle(tensors)
    return dict(tensors)


@pytest.mark.parametrize("name", [*variants(), *PLAIN_TWINS])
def test_every_row_of_the_family(name):
    found = recognise(shuffled_tensors(name))
    expected = next((names for names in ALIKE if name in names), {name})
    assert set(found.names) == expected
    assert found.spec == spec(found.names[0])


@pytest.mark.parametrize(
    "choices",
    [
        {"norm": "group"},
        {"norm": "none"},
        {"conv_bias": True},
        {"attention": "eca"},
        {"norm": "none", "branch_scale": "skipinit"},
    ],
)
def test_a_choice_keeps_the_name(choices):
    found = recognise(shuffled_tensors("resnet50", **choices))
    assert found.names == ("resnet50",) and found.spec == spec("resnet50", **choices)


def test_a_network_of_no_paper_is_built_from_what_shows():
    own = {"depths": (1, 2, 1, 1), "widths": (16, 32, 48, 64), "stem_width": 24}
    found = recognise(shuffled_tensors("resnet50", num_classes=7, in_channels=5, **own))
    assert found.spec == spec("resnet50", 7, 5, **own).__class__(
        **vars(spec("resnet50", 7, 5, **own)) | {"name": "custom_resnet17"}
    )


def test_without_names_the_shapes_still_tell():
    tensors = shuffled_tensors("resnet50d")
    shapes = [tuple(value.shape) for value in tensors.values()]
    assert by_shapes(shapes) == ["resnet50c", "resnet50d"]
    with pytest.raises(ResnetkitError, match="its shapes are those of resnet50c or resnet50d"):
        recognise({str(i): value for i, value in enumerate(tensors.values())})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: {k: v for k, v in t.items() if not k.startswith("stages.1.0.")}, "not numbered without a gap"),
        (lambda t: t | {"stages.0.0.branch.conv3.weight": torch.empty(250, 64, 1, 1)}, "not four times a width"),
        (lambda t: t | {"stem.convs.conv1.weight": torch.empty(64, 3, 5, 5)}, "the first of 5x5"),
        (lambda t: {k: v for k, v in t.items() if "0.0.branch.conv2" not in k}, "it has no branch.conv2.weight"),
    ],
)
def test_what_is_no_network_of_ours_is_refused(change, problem):
    with pytest.raises(ResnetkitError, match=problem):
        recognise(change(shuffled_tensors("resnet50")))
