"""Norms of gradients against autograd by hand, and the figures that the issue names, on a small network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnetkit.lab.gradients import NETS, SETTINGS, Gradients, block_norms, initialised


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


LIKE = {"plain": 500.0, "residual": 1.5, "pre-activation": 1.0}  # the first block's gradient with batch norm


def verdicts(changes, seeds=3):
    """Of the first block's gradients by (net, setting), or a value for each seed, where the last block's is 1."""
    experiment, rows = Gradients(depths=(8, 14, 20), seeds=seeds, steps=0), []
    for cell in experiment.cells():
        first = changes.get((cell["net"], cell["setting"]), LIKE[cell["net"]])
        first = first[cell["seed"]] if isinstance(first, tuple) else first * (1 + 0.01 * cell["seed"])
        rows.append(cell | {"loss": 3.0, "gradients": [first, 1.0], "activations": [1.0, 1.0]})
    return {finding.key: finding.holds for finding in experiment.read(rows).findings}


@pytest.mark.parametrize(
    ("key", "changes", "holds"),
    [
        ("plain_batch_norm_vanishes", {}, False),
        ("plain_batch_norm_vanishes", {("plain", "batch norm, He"): 1e-6}, True),
        ("plain_batch_norm_vanishes", {("plain", "batch norm, He"): (1e-6, 1.0, 1.0)}, None),
        ("plain_default_vanishes", {("plain", "no norm, PyTorch"): 0.0}, True),
        ("plain_default_vanishes", {}, False),
        ("plain_default_vanishes", {("plain", "no norm, PyTorch"): 0.0, ("residual", "no norm, PyTorch"): 0.0}, False),
        ("he_cures_plain", {}, True),
        ("he_cures_plain", {("plain", "no norm, He"): 1e-6}, False),
        ("residual_explodes", {("residual", "no norm, He"): 3e4}, True),
        ("residual_explodes", {}, False),
        ("residual_explodes", {("residual", "no norm, He"): (1.0, 3e2, 3e4)}, None),
        ("shortcut_tames", {}, True),
        ("shortcut_tames", {("plain", "batch norm, He"): 3.0}, False),
    ],
)
def test_verdicts_are_of_whole_intervals(key, changes, holds):
    assert set(NETS) == set(LIKE) and all(setting in SETTINGS for _, setting in changes)
    assert verdicts(changes)[key] is holds


def test_one_seed_has_no_interval_to_judge_by():
    assert set(verdicts({}, seeds=1).values()) == {None}
