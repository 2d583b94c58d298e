"""Folded networks against the networks they are copies of."""

import pytest
import torch
from torch import nn

import resnetkit as rk
from resnetkit.inference.folding import folded


def norms(net):
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def lived_in(name, **choices):
    """A network whose norms do something."""
    net = rk.build(name, **choices).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.5, 2)):
                values.uniform_(low, high)
            if module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.uniform_(module.bias, -1, 1)
    return net


@pytest.mark.parametrize(
    ("name", "choices", "left"),
    [
        ("resnet18", {}, 0),
        ("resnet50d", {"attention": "se"}, 0),
        ("resnet18", {"padding": "same"}, 0),
        ("resnet18", {"conv_bias": True}, 0),
        ("preact_resnet20_cifar", {}, 10),  # of its nine blocks' beginnings and of its end, each after a sum
        ("fast_resnet8_cifar", {}, 3),  # behind a pool: a negative scale would make the largest values the smallest
        ("resnet18", {"norm": "group"}, 0),
    ],
)
@torch.no_grad()
def test_a_folded_network_gives_the_same(name, choices, left):
    torch.manual_seed(0)
    net = lived_in(name, **choices).double()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    had = norms(net)
    copy = folded(net)
    x = torch.randn(2, net.spec.in_channels, 33, 47, dtype=torch.float64)
    assert torch.allclose(copy(x), net(x), rtol=1e-9, atol=1e-9)
    assert norms(copy) == left and norms(net) == had
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
