"""Folded networks against the networks they are copies of."""

import pytest
import torch
from torch import nn

import resnetkit as rk
from resnetkit.architecture.folding import folded
from tests.conftest import randomise_near_epsilon


def norms(net):
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@torch.no_grad()
def lived_in(name, **choices):
    """A network whose norms do something, some of them with a minus."""
    net = randomise_near_epsilon(rk.build(name, **choices).eval())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight[1::3] *= -1
    return net


@pytest.mark.parametrize(
    ("name", "choices", "left"),
    [
        ("resnet18", {}, 0),
        ("plain20_cifar", {}, 0),
        ("resnet50d", {"attention": "se"}, 0),
        ("resnet18", {"padding": "same"}, 0),
        ("resnet18", {"conv_bias": True}, 0),
        ("resnet18", {"norm": "frozen"}, 0),
        ("preact_resnet20_cifar", {}, 10),  # of its nine blocks' beginnings and of its end, each after a sum
        ("fast_resnet8_cifar", {}, 3),  # behind a pool: a negative scale would make the largest values the smallest
    ],
)
@torch.no_grad()
def test_a_folded_network_gives_the_same(name, choices, left):
    torch.manual_seed(0)
    net = lived_in(name, **choices).double().place("cpu")
    before, had = {key: value.clone() for key, value in net.state_dict().items()}, norms(net)
    copy = folded(net)
    x = torch.randn(2, net.spec.in_channels, 33, 47, dtype=torch.float64)
    assert torch.allclose(copy(x), net(x), rtol=1e-9, atol=1e-9)
    assert norms(copy) == left and norms(net) == had > left
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@torch.no_grad()
def test_in_float32_it_differs_by_rounding():
    torch.manual_seed(0)
    net, x = lived_in("resnet50"), torch.randn(2, 3, 64, 64)
    exact = net.double()(x.double())
    net.float()
    error, folded_error = ((logits - exact).norm() / exact.norm() for logits in (net(x), folded(net)(x)))
    assert folded_error < 4 * error < 1e-4
