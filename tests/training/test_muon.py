"""Muon against the singular value decomposition and PyTorch's SGD and AdamW."""

import pytest
import torch
from torch.optim import SGD, AdamW

from resnetkit import build
from resnetkit.errors import ResnetkitError
from resnetkit.training.muon import Muon, orthogonal
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.recipe import make_recipe

RECIPE = {"model": "resnet8_cifar", "epochs": 1, "lr": 0.05, "optimizer": "muon"}


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 144, 16), (1, 64, 64)])
def test_orthogonal_is_near_the_polar_factor(shape):
    """By the singular value decomposition: all directions of the matrix, none much longer than another."""
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    found = orthogonal(matrices)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    polar = u @ v
    cosine = (found * polar).flatten(1).sum(1) / (found.flatten(1).norm(dim=1) * polar.flatten(1).norm(dim=1))
    assert (cosine > 0.95).all()
    plain = (matrices * polar).flatten(1).sum(1) / (matrices.flatten(1).norm(dim=1) * polar.flatten(1).norm(dim=1))
    assert (plain < cosine).all()


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (64, 64)])
def test_orthogonal_is_the_iteration_of_pytorchs_muon(shape):
    """Which multiplies the whole matrix in each iteration, in bfloat16."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape)
    found = orthogonal(weight.grad[None])[0]
    theirs = torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, ns_steps=3)
    theirs.step()
    scale = max(1, shape[0] / shape[1]) ** 0.5  # theirs lengthens the step of a tall matrix
    torch.testing.assert_close(-weight.detach() / scale, found, rtol=0, atol=0.02 * found.abs().max().item())


def test_orthogonal_serves_each_matrix_by_itself():
    torch.manual_seed(0)
    matrices = torch.randn(4, 8, 20)
    alone = torch.cat([orthogonal(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonal(matrices), alone)


def test_filters_turn_and_keep_their_norm():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(16, 8, 3, 3))
    weight.grad = torch.randn_like(weight)
    before = weight.detach().clone()
    Muon([{"params": [weight], "rule": "orthogonal"}], lr=0.05, momentum=0.9).step()
    assert weight.norm().item() == pytest.approx(before.norm().item(), rel=1e-6)
    assert ((weight - before).norm() / before.norm()).item() == pytest.approx(0.05, rel=0.05)
    assert (weight - before).mul(weight.grad).sum() < 0


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (16, 2, 1, 1), (4, 6, 1, 1)])
def test_each_group_of_a_convolution_is_a_matrix_of_its_own(shape):
    """Whatever the scale of its gradient beside the others'."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2 * shape[1], shape[0], shape[2], groups=2, bias=False)
    weight = conv.weight
    weight.grad = torch.randn_like(weight)
    weight.grad[: shape[0] // 2] *= 100
    before = weight.detach().clone()
    Muon([{"params": [weight], "rule": "orthogonal", "filter_groups": 2}], lr=0.01, momentum=0.9).step()
    turning = torch.cat([orthogonal(gradient.flatten(1)[None])[0] for gradient in weight.grad.chunk(2)])
    expected = before.flatten(1) / before.norm() - 0.01 * turning / turning.norm()
    torch.testing.assert_close(weight.detach().flatten(1) / before.norm(), expected / expected.norm())


def test_the_rest_takes_pytorchs_step_of_adamw_and_goes_on_with_it_after_a_resume():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)) for _ in range(2))
    groups = [{"params": [ours], "weight_decay": 5e-2}]
    muon = Muon(groups, lr=0.1, momentum=0.6)
    adamw = AdamW([theirs], lr=0.1, betas=(0.9, 0.95), weight_decay=5e-2, foreach=False)
    for _ in range(3):
        ours.grad = torch.randn(3, 4)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
        resumed = Muon(groups, lr=0.1, momentum=0.6)
        resumed.load_state_dict(muon.state_dict())
        muon = resumed
    torch.testing.assert_close(ours, theirs)


def test_other_kernels_take_pytorchs_step_of_sgd():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4, 1)) for _ in range(2))
    muon = Muon([{"params": [ours], "weight_decay": 5e-2, "rule": "sgd"}], lr=0.1, momentum=0.9)
    sgd = SGD([theirs], lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-2)
    for _ in range(3):
        ours.grad = torch.randn(3, 4, 1)
        theirs.grad = ours.grad.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_each_parameter_learns_by_its_rule_at_its_rate():
    net = build("preact_resnet8_cifar")
    groups = make_optimizer(net, make_recipe(RECIPE | {"model": "preact_resnet8_cifar"})).param_groups
    found = {id(p): (group["rule"], 0.05 * group["scale"]) for group in groups for p in group["params"]}
    named = {name: found[id(p)] for name, p in net.named_parameters()}
    assert named["stages.0.0.branch.conv1.weight"] == ("orthogonal", 0.05)
    assert named["stages.0.0.branch.conv2.weight"] == ("sgd", 0.2)
    for name in ("head.classifier.weight", "head.classifier.bias", "norm.0.weight"):
        assert named[name] == ("adamw", pytest.approx(0.005))


def test_a_run_of_the_earlier_muon_is_refused():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    muon = Muon([{"params": [parameter]}], lr=0.1, momentum=0.9)
    muon.state[parameter] = {"momentum_buffer": torch.ones(3)}
    with pytest.raises(ResnetkitError, match="start it anew"):
        muon.step()


@pytest.mark.parametrize(
    ("name", "turned"),
    [
        ("resnet8_cifar", lambda name: "conv" in name),
        ("ecaresnet50d", lambda name: "conv" in name and "attention" not in name),
        ("seresnet50", lambda name: "conv" in name and "attention" not in name),
        ("fast_resnet8_cifar", lambda name: "conv" in name),
        ("resnext50_32x4d", lambda name: "conv" in name),
        ("preact_resnet8_cifar", lambda name: "branch.conv1" in name),
    ],
)
def test_convolutions_under_a_norm_are_turned_and_every_parameter_learns(name, turned):
    net = build(name)
    groups = make_optimizer(net, make_recipe(RECIPE | {"model": name})).param_groups
    found = {id(p) for group in groups if group["rule"] == "orthogonal" for p in group["params"]}
    weights = {name: p for name, p in net.named_parameters() if p.ndim == 4}
    assert found == {id(p) for name, p in weights.items() if turned(name)}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in net.parameters())


def test_the_groups_of_convolutions_are_the_networks():
    net = build("resnext29_8x64d_cifar")
    groups = make_optimizer(net, make_recipe(RECIPE | {"model": "resnext29_8x64d_cifar"})).param_groups
    found = {id(p): group["filter_groups"] for group in groups for p in group["params"]}
    convolutions = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert {found[id(conv.weight)] - conv.groups for conv in convolutions} == {0}
    assert {conv.groups for conv in convolutions} == {1, 8}


def test_a_network_without_norms_is_refused():
    with pytest.raises(ResnetkitError, match="norm='none': use sgd or adamw"):
        make_optimizer(build("resnet8_cifar", norm="none"), make_recipe(RECIPE))
