"""Norms of gradients against autograd by hand, and the figures that the issue names, on a small network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnetkit.lab.gradients import block_norms, initialised


def net(name="plain8_cifar", norm="batch", init="he", seed=0):
    return initialised(name, 10, 3, norm, init, seed)


def test_norms_are_autograds():
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    found = block_norms(net(), x, labels)
    by_hand = net().train()
    outputs = [by_hand.stem(x)]
    for stage in by_hand.stages:
        outputs.append(stage(outputs[-1]))
    loss = F.cross_entropy(by_hand.head(outputs[-1]), labels)
    gradients = torch.autograd.grad(loss, [stage[0].branch.conv1.weight for stage in by_hand.stages])
    assert found.loss == pytest.approx(loss.item())
    assert found.gradients == pytest.approx([float((g**2).sum() ** 0.5) for g in gradients], rel=1e-5)
    assert found.activations == pytest.approx([float((o**2).mean() ** 0.5) for o in outputs[1:]], rel=1e-5)


def test_nothing_is_left_behind():
    network = net()
    block_norms(network, torch.randn(4, 3, 8, 8), torch.arange(4))
    assert not any(module._forward_hooks for module in network.modules())


def test_initialisations_are_what_they_are_called():
    for kind in (nn.Conv2d, nn.Linear):
        torch.manual_seed(0)
        fresh = [m for m in net(init="pytorch").modules() if isinstance(m, kind)][0]
        bound = (1 / fresh.weight[0].numel()) ** 0.5  # PyTorch's kaiming_uniform with a = sqrt(5): 1 / sqrt(fan_in)
        assert fresh.weight.abs().max() <= bound
        assert fresh.weight.abs().max() > 0.9 * bound
    he = net(init="he").stages[0][0].branch.conv1.weight
    assert float(he.std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)
    zero = net("resnet8_cifar", "none", "zero").stages[0][0]
    assert not zero.branch.conv2.weight.any() and zero.branch.conv1.weight.any()


def test_plain_gradients_vanish_by_pytorchs_initialisation_and_not_with_batch_norm():
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    share = {}
    for norm in ("none", "batch"):
        norms = block_norms(net("plain44_cifar", norm, "pytorch"), x, labels).gradients
        share[norm] = norms[0] / norms[-1]
    assert share["none"] < 1e-6
    assert share["batch"] > 1


def test_without_norm_residual_outputs_double_their_variance():
    x = torch.randn(16, 3, 8, 8)
    norms = block_norms(net("resnet44_cifar", "none", "he"), x, torch.arange(16) % 10)
    stage = norms.activations[:7]
    growth = (stage[-1] / stage[0]) ** (2 / 6)  # of the mean square, a block
    assert 1.5 < growth < 2.5
